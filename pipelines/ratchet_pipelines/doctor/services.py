"""Services by their addresses: MLflow, the gate, Prometheus, the pool, the judge, the hub, Kubeflow."""

import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from ratchet.release.gate.tokens import VARIABLE, bearer
from ratchet.store import LocalStore
from ratchet_pipelines.doctor.cluster import metric_queries
from ratchet_pipelines.doctor.findings import Finding, Site

TIMEOUT_S = 10.0
MIN_KUBEFLOW = (2, 15)  # the first whose driver knows `secretAsEnv.optional`
APIS = ("v2beta1", "v1beta1")  # of Kubeflow Pipelines
HUB = "https://huggingface.co"


def check_mlflow(site: Site) -> Iterator[Finding]:
    """MLflow answers, at the version of our client, and takes what registering writes first: the experiment."""
    from importlib.metadata import version

    from ratchet.registry.mlflow_store import connect, experiment_id

    uri = site.config.registry.tracking_uri
    if uri is None and isinstance(site.store, LocalStore):
        yield Finding(check="mlflow", state="ok", what="SQLite in the lake, made by the first training")
        return
    if uri is not None and uri.startswith("http"):
        signed = _signed(os.environ.get("MLFLOW_TRACKING_TOKEN", ""))
        try:
            answer = httpx.get(f"{uri}/version", timeout=TIMEOUT_S, headers=signed, auth=_mlflow_login())
        except httpx.TransportError as error:
            yield _away(site, "mlflow", uri, error, "start it, or see registry.tracking_uri")
            return
        if not answer.is_success:
            do = "see registry.tracking_uri, and MLFLOW_TRACKING_TOKEN or _USERNAME and _PASSWORD"
            what = f"{uri} answers {answer.status_code}"
            yield Finding(check="mlflow", state="missing", what=what, do=do)
            return
        theirs, ours = answer.text.strip(), version("mlflow-skinny")
        if theirs.split(".")[:2] != ours.split(".")[:2]:
            what = f"the server is {theirs}, and our client {ours}"
            do = "run the server at the client's version: infra/images/mlflow.Dockerfile builds it"
            yield Finding(check="mlflow.version", state="warning", what=what, do=do)
    client = connect(site.config, site.store)
    experiment = experiment_id(client, site.config)
    what = f"{uri}, experiment {site.config.registry.experiment} ({experiment})"
    yield Finding(check="mlflow", state="ok", what=what)


def check_gate(site: Site) -> Iterator[Finding]:
    """The gate answers here, and knows our token. Whether Flagger reaches it, the cluster's checks say."""
    url, token = site.config.release_adapter.gate_url, os.environ.get(VARIABLE, "")
    if url is None:
        return
    try:
        answer = httpx.get(f"{url}/state", timeout=TIMEOUT_S, headers=_signed(token))
    except httpx.TransportError as error:
        yield _away(site, "gate", url, error, "start it, or see release_adapter.gate_url")
        return
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        do = f"export {VARIABLE} as the gate has it"
        yield Finding(check="gate", state="missing", what=f"{url} does not know our {VARIABLE}", do=do)
    elif not answer.is_success:
        what = f"{url}/state answers {answer.status_code}"
        yield Finding(check="gate", state="missing", what=what, do="see release_adapter.gate_url, and the gate's log")
    else:
        yield Finding(check="gate", state="ok", what=f"{url} answers, and knows our token")


def check_prometheus(site: Site) -> Iterator[Finding]:
    """Each query of the Canary's metrics has a value for the pods that serve now: Flagger takes none for a failure."""
    for name, address, query in metric_queries(site):
        url = site.prometheus_url or address
        try:
            values = _values(url, query)
        except httpx.TransportError as error:
            do = "--prometheus-url URL names it as seen from here; Flagger asks at the template's own address"
            yield Finding(check=f"prometheus.{name}", state="unchecked", what=f"{url}: {error}", do=do)
            continue
        if values and not math.isnan(values[0]):
            yield Finding(check=f"prometheus.{name}", state="ok", what=f"{url} says {values[0]:g}")
        else:
            do = "let Prometheus read the routers: podMonitor of charts/adapter-router, with labels that it selects by"
            what = f"{url} has no value for the pods that serve: every canary would fail"
            yield Finding(check=f"prometheus.{name}", state="missing", what=what, do=do)


def check_pool_answers(site: Site) -> Iterator[Finding]:
    """The pool names the base model among its models."""
    if site.pool_url is None:
        return
    models = [each["id"] for each in _json(f"{site.pool_url}/v1/models").get("data", [])]
    base = site.config.base_model.model
    if base in models:
        yield Finding(check="pool.models", state="ok", what=f"{site.pool_url} serves {', '.join(models)}")
    else:
        what = f"{site.pool_url} serves {', '.join(models) or 'nothing'}, not {base}"
        do = "serve base_model.model: an adapter fits the model that it was trained on and no other"
        yield Finding(check="pool.models", state="missing", what=what, do=do)


def check_judge(site: Site) -> Iterator[Finding]:
    """The judge's key and endpoint, where one is configured. Asks for the list of models, which costs nothing."""
    judge, key = site.config.evaluate_adapter.judge, os.environ.get("RATCHET_JUDGE_KEY", "")
    if judge.style not in ("openai", "anthropic"):
        return
    is_openai = judge.style == "openai"
    headers = _signed(key) if is_openai else {"x-api-key": key, "anthropic-version": "2023-06-01"}
    url = f"{judge.url.rstrip('/')}/{'models' if is_openai else 'v1/models'}"
    answer = httpx.get(url, timeout=TIMEOUT_S, headers=headers)
    what = f"{judge.url}: {answer.status_code}"
    if answer.is_success:
        yield Finding(check="judge", state="ok", what=f"{judge.url} lets us in")
    elif answer.status_code in (httpx.codes.NOT_FOUND, httpx.codes.METHOD_NOT_ALLOWED):
        do = "it lists no models, so the key was not tried: `ratchet calibrate-judge --limit 1` does"
        yield Finding(check="judge", state="unchecked", what=what, do=do)
    else:
        do = "set RATCHET_JUDGE_KEY to a key of that endpoint; pods take it from the Secret ratchet-env"
        yield Finding(check="judge", state="missing", what=what, do=do)


def check_hub(site: Site) -> Iterator[Finding]:
    """A base model on the hub may be fetched with the token at hand, if the hub is reached from here."""
    base = site.config.base_model
    if "/" not in base.model or Path(base.model).exists():
        return
    token = os.environ.get("HF_TOKEN", "")
    try:
        answer = httpx.head(
            f"{os.environ.get('HF_ENDPOINT', HUB)}/{base.model}/resolve/{base.revision}/config.json",
            timeout=TIMEOUT_S, headers=_signed(token), follow_redirects=True,
        )  # fmt: skip
    except httpx.TransportError as error:
        do = "where pods have no way to it either, mirror the model and set HF_ENDPOINT, or name a folder"
        yield Finding(check="hub", state="unchecked", what=f"the hub does not answer here ({error})", do=do)
        return
    if answer.is_success:
        yield Finding(check="hub", state="ok", what=f"{base.model} at {base.revision} may be fetched")
    else:
        do = (
            "accept its licence on the hub, and set HF_TOKEN (Secret ratchet-env); see that name and revision are there"
        )
        what = f"{base.model} at {base.revision}: {answer.status_code}"
        yield Finding(check="hub", state="missing", what=what, do=do)


def check_kubeflow(site: Site) -> Iterator[Finding]:
    """Kubeflow Pipelines' backend knows what our pipelines ask of it."""
    if site.kubeflow_url is None:
        return
    tag = next(filter(None, (_kubeflow_tag(f"{site.kubeflow_url}/apis/{api}/healthz") for api in APIS)), "")
    numbers = tuple(int(part) for part in tag.lstrip("v").split("-")[0].split(".")[:2] if part.isdigit())
    least = ".".join(map(str, MIN_KUBEFLOW))
    if numbers < MIN_KUBEFLOW:
        what = f"{site.kubeflow_url} is {tag or 'of an unknown version'}"
        do = f"use {least} or newer: older ones do not know optional Secrets, and demand every key"
        yield Finding(check="kubeflow", state="missing" if numbers else "unchecked", what=what, do=do)
    else:
        yield Finding(check="kubeflow", state="ok", what=f"{site.kubeflow_url} is {tag}")


def _away(site: Site, check: str, url: str, error: Exception, do: str) -> Finding:
    """A service that does not answer: missing, unless it is one of the cluster's and this is a laptop."""
    what = f"{url} does not answer here ({error})"
    if ".svc" in url and site.role is None:
        return Finding(check=check, state="unchecked", what=what, do="run `ratchet doctor` in a pod of the cluster too")
    return Finding(check=check, state="missing", what=what, do=do)


def _kubeflow_tag(url: str) -> str:
    """The version of the backend, by its own word or by the UI's; empty where this API does not say it."""
    answer = httpx.get(url, timeout=TIMEOUT_S)
    health = answer.json() if answer.is_success else {}
    return str(health.get("apiServerTagName") or health.get("tag_name") or "")


def _values(url: str, query: str) -> list[float]:
    found = _json(f"{url}/api/v1/query", query=query)
    return [float(each["value"][1]) for each in found["data"]["result"]]


def _json(url: str, **parameters: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = httpx.get(url, params=parameters, timeout=TIMEOUT_S).raise_for_status().json()
    return found


def _signed(token: str) -> dict[str, str]:
    return bearer(token) if token else {}


def _mlflow_login() -> tuple[str, str] | None:
    name, password = (os.environ.get(f"MLFLOW_TRACKING_{part}") for part in ("USERNAME", "PASSWORD"))
    return (name, password) if name and password else None
