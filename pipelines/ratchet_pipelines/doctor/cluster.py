"""The cluster, over the Kubernetes API: versions, Flagger, the way to the gate, rights, GPUs, the pool."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

import httpx

from ratchet.errors import UserError
from ratchet.needs import RELEASE_ACCOUNT
from ratchet.release.gate.tokens import METADATA_KEY, VARIABLE, hook_token
from ratchet.release.reconciler.kubernetes import api_client
from ratchet_pipelines.doctor.findings import Finding, Site

Object = Mapping[str, Any]
MIN_VERSION = (1, 30)
MIN_FLAGGER = (1, 42)  # the first that takes Gateway API's v1 and the autoscaler of both arms as the charts write them
PROVIDER = "gatewayapi:v1"
APIS = {
    "flagger.app/v1beta1": ("canaries", "metrictemplates"),
    "gateway.networking.k8s.io/v1": ("gateways", "httproutes"),
    "autoscaling/v2": ("horizontalpodautoscalers",),
}
READ_BY_RELEASE = (
    ("flagger.app", "canaries"),
    ("apps", "deployments"),
    ("gateway.networking.k8s.io", "httproutes"),
)
GPU = "nvidia.com/gpu"
NAMESPACE_NAME = "kubernetes.io/metadata.name"


class Api:
    """Objects by path; None for one that is not there."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    @classmethod
    @contextmanager
    def of(cls, url: str) -> Iterator[Self]:
        with api_client(url) as client:
            yield cls(client)

    def get(self, path: str, **parameters: str) -> dict[str, Any] | None:
        return self._read(path, self._client.get(path, params=parameters))

    def items(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        return list((self.get(path, **parameters) or {}).get("items") or [])

    def ask(self, path: str, body: Object) -> dict[str, Any] | None:
        return self._read(path, self._client.post(path, json=body))

    @staticmethod
    def _read(path: str, answer: httpx.Response) -> dict[str, Any] | None:
        if answer.status_code == httpx.codes.NOT_FOUND:
            return None
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise UserError(
                f"{path}: {answer.status_code}; use an account that may read it, as through `kubectl proxy`"
            )
        found: dict[str, Any] = answer.raise_for_status().json()
        return found


def check_cluster(site: Site) -> Iterator[Finding]:
    """Kubernetes' version, and the kinds that the charts make."""
    if site.cluster_url is None:
        do = "`kubectl proxy &`, then --cluster http://127.0.0.1:8001; in a pod, release_adapter.cluster_url names it"
        yield Finding(check="cluster", state="unchecked", what="no cluster was named", do=do)
        return
    with Api.of(site.cluster_url) as api:
        version = api.get("/version") or {}
        text = f"{version.get('major', '0')}.{version.get('minor', '0')}"
        is_new = _numbers(text) >= MIN_VERSION
        wanted = ".".join(map(str, MIN_VERSION))
        do = "" if is_new else f"use Kubernetes {wanted} or newer"
        yield Finding(check="cluster", state="ok" if is_new else "missing", what=f"Kubernetes {text}", do=do)
        for group, kinds in APIS.items():
            there = {each["name"] for each in (api.get(f"/apis/{group}") or {}).get("resources", [])}
            if absent := [kind for kind in kinds if kind not in there]:
                what = f"the cluster has no {', '.join(absent)} of {group}"
                do = "install its CustomResourceDefinitions: docs/argo.md, step 1"
                yield Finding(check=f"cluster.{group}", state="missing", what=what, do=do)


def check_flagger(site: Site) -> Iterator[Finding]:
    """Flagger runs, is new enough, and speaks to the Gateway API."""
    if site.cluster_url is None:
        return
    with Api.of(site.cluster_url) as api:
        flagger = _flagger(api)
    if flagger is None:
        do = "install its chart: infra/argocd has the Application"
        yield Finding(check="flagger", state="missing", what="no Deployment is labelled as Flagger's", do=do)
        return
    container = flagger["spec"]["template"]["spec"]["containers"][0]
    provider = _flag([*container.get("command", []), *container.get("args", [])], "mesh-provider")
    tag = container["image"].partition("@")[0].rpartition(":")[2]
    version = tag if _numbers(tag) else flagger["metadata"].get("labels", {}).get("app.kubernetes.io/version", "")
    place = f"Flagger {version} in {flagger['metadata']['namespace']}"
    if provider != PROVIDER:
        do = f"set the chart's meshProvider to {PROVIDER}: it makes no HTTPRoute otherwise"
        yield Finding(check="flagger", state="missing", what=f"{place} has the mesh provider {provider!r}", do=do)
    elif _numbers(version) and _numbers(version) < MIN_FLAGGER:
        do = f"use {'.'.join(map(str, MIN_FLAGGER))} or newer"
        yield Finding(check="flagger", state="missing", what=f"{place} is too old", do=do)
    elif not flagger.get("status", {}).get("availableReplicas"):
        yield Finding(check="flagger", state="missing", what=f"{place} is not available", do="see its events and log")
    else:
        yield Finding(check="flagger", state="ok", what=f"{place}, {provider}")


def check_canary(site: Site) -> Iterator[Finding]:
    """The Canary, and each webhook's way from Flagger's namespace to the gate, with the token that the gate knows."""
    if site.cluster_url is None:
        return
    release = site.config.release_adapter
    path = f"/apis/flagger.app/v1beta1/namespaces/{release.namespace}/canaries/{release.canary}"
    with Api.of(site.cluster_url) as api:
        canary = api.get(path)
        if canary is None:
            do = "deploy charts/adapter-router, or name it: release_adapter.namespace and .canary"
            what = f"no Canary {release.canary} in {release.namespace}"
            yield Finding(check="canary", state="missing", what=what, do=do)
            return
        phase = canary.get("status", {}).get("phase", "not begun")
        yield Finding(check="canary", state="ok", what=f"{release.canary} in {release.namespace}: {phase}")
        analysis = canary["spec"].get("analysis", {})
        if not analysis.get("metrics"):
            what = "Flagger watches no errors and no latency: a canary that answers 500 is only held"
            do = "set prometheus.address of charts/adapter-router, and podMonitor with it"
            yield Finding(check="canary.metrics", state="warning", what=what, do=do)
        hooks = analysis.get("webhooks", [])
        flagger = _flagger(api)
        for origin in sorted({f"{urlsplit(hook['url']).scheme}://{urlsplit(hook['url']).netloc}" for hook in hooks}):
            yield from _way(api, origin, flagger)
    yield from _hook_tokens(hooks)


def _way(api: Api, origin: str, flagger: Object | None) -> Iterator[Finding]:
    """Whether Flagger's pod reaches what stands behind a webhook's address."""
    sender = flagger["metadata"]["namespace"] if flagger else None
    parts = urlsplit(origin)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    name, _, rest = host.partition(".")
    namespace = rest.partition(".")[0]
    if not namespace:
        do = (
            f"write {name}.NAMESPACE.svc: Flagger asks from {sender or 'its own namespace'}, where that name is nothing"
        )
        yield Finding(check="gate.address", state="missing", what=f"webhooks call {origin}, without namespace", do=do)
        return
    service = api.get(f"/api/v1/namespaces/{namespace}/services/{name}")
    if service is None or port not in [each["port"] for each in service["spec"].get("ports", [])]:
        what = f"webhooks call {origin}: {'no such Service' if service is None else f'the Service has no port {port}'}"
        do = "deploy charts/release-services there, or set gate.url of charts/adapter-router"
        yield Finding(check="gate.address", state="missing", what=what, do=do)
        return
    slices = api.items(
        f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices",
        labelSelector=f"kubernetes.io/service-name={name}",
    )
    if not any(each.get("conditions", {}).get("ready") for part in slices for each in part.get("endpoints") or []):
        what, do = f"no pod behind {origin} is ready", f"kubectl -n {namespace} logs deploy/{name}"
        yield Finding(check="gate.ready", state="missing", what=what, do=do)
    if flagger is None:
        return
    caller = Caller(
        namespace=(api.get(f"/api/v1/namespaces/{sender}") or {}).get("metadata", {}).get("labels") or {},
        pod=flagger["spec"]["template"].get("metadata", {}).get("labels") or {},
        is_inside=sender == namespace,
        ports=_ports(api, namespace, service, port),
    )
    policies = api.items(f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies")
    governing = [each for each in policies if _selects(each, service["spec"].get("selector", {}))]
    shut = [each["metadata"]["name"] for each in governing]
    if shut and not any(_admits(each, caller) for each in governing):
        what = f"NetworkPolicy {', '.join(shut)} of {namespace} admits no pod of {sender}, where Flagger is"
        do = f"add {sender} to gate.allowedNamespaces of charts/release-services"
        yield Finding(check="gate.policy", state="missing", what=what, do=do)
    else:
        yield Finding(check="gate.address", state="ok", what=f"{origin} is open to {sender}")


def _hook_tokens(hooks: Sequence[Object]) -> Iterator[Finding]:
    shown = {(hook.get("metadata") or {}).get(METADATA_KEY, "") for hook in hooks}
    token = os.environ.get(VARIABLE)
    if not token:
        do = f"export {VARIABLE} as the Secret ratchet-gate has it, and this compares them"
        yield Finding(check="gate.token", state="unchecked", what=f"{VARIABLE} is not set here", do=do)
    elif shown != {hook_token(token)}:
        do = "set gate.token of charts/adapter-router to what `ratchet hook-token` prints"
        what = "the webhooks carry another token than the gate's, which will refuse them"
        yield Finding(check="gate.token", state="missing", what=what, do=do)
    else:
        yield Finding(check="gate.token", state="ok", what="the webhooks carry the gate's token")


def check_release_account(site: Site) -> Iterator[Finding]:
    """The service account that releases may look at what it has to look at."""
    if site.cluster_url is None:
        return
    namespace = site.config.release_adapter.namespace
    user = f"system:serviceaccount:{namespace}:{RELEASE_ACCOUNT}"
    with Api.of(site.cluster_url) as api:
        refused = [kind for group, kind in READ_BY_RELEASE if not _may_get(api, user, namespace, group, kind)]
    if refused:
        what = f"{RELEASE_ACCOUNT} may not get {', '.join(refused)} in {namespace}"
        do = "deploy charts/release-services, whose Role canary-reader says so"
        yield Finding(check="account.release", state="missing", what=what, do=do)
    else:
        yield Finding(check="account.release", state="ok", what=f"{RELEASE_ACCOUNT} may look at the canary")


def check_pool(site: Site) -> Iterator[Finding]:
    """VLLM's flags: adapters at run time, of the rank that training makes, on the base model that it trains."""
    if site.cluster_url is None:
        return
    namespace, base = site.config.release_adapter.namespace, site.config.base_model
    with Api.of(site.cluster_url) as api:
        deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    served = [each for deployment in deployments for each in _containers(deployment) if _is_vllm(each)]
    if not served:
        what = f"no Deployment in {namespace} runs `vllm serve`"
        yield Finding(check="pool", state="missing", what=what, do="deploy charts/model-pool")
    for container in served:
        words = [*container.get("command", []), *container.get("args", [])]
        environment = {each["name"]: each.get("value", "") for each in container.get("env", [])}
        rank, needed = _flag(words, "max-lora-rank") or "16", site.config.train_adapter.lora.r  # vLLM's default: 16
        faults = {
            "--enable-lora": "--enable-lora" not in words,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True": environment.get("VLLM_ALLOW_RUNTIME_LORA_UPDATING") != "True",
            f"--max-lora-rank={needed} or more, instead of {rank}": int(rank) < needed,
            f"the base model {base.model}": base.model not in words,
        }
        if missing := [name for name, is_missing in faults.items() if is_missing]:
            do = "set the values of charts/model-pool: every adapter would be refused"
            yield Finding(check="pool", state="missing", what=f"vLLM lacks {'; '.join(missing)}", do=do)
        else:
            yield Finding(check="pool", state="ok", what=f"vLLM serves {base.model}, adapters to rank {rank}")


def check_gpus(site: Site) -> Iterator[Finding]:
    """GPUs for training besides those that serve."""
    if site.cluster_url is None or site.config.train_adapter.device != "cuda":
        return
    namespace = site.config.release_adapter.namespace
    with Api.of(site.cluster_url) as api:
        there = sum(int(each["status"].get("allocatable", {}).get(GPU, 0)) for each in api.items("/api/v1/nodes"))
        deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    serving = sum(
        int(deployment["spec"].get("replicas", 1)) * int(each.get("resources", {}).get("limits", {}).get(GPU, 0))
        for deployment in deployments
        for each in _containers(deployment)
    )
    if there <= serving:
        what = f"{there} GPUs are there, and serving takes {serving}: none is left to train on"
        do = "let an autoscaler add nodes for training (infra/terraform, gpu_nodes), or add one; else it waits"
        yield Finding(check="gpu.nodes", state="warning", what=what, do=do)
    else:
        yield Finding(check="gpu.nodes", state="ok", what=f"{there} GPUs, of which serving takes {serving}")


def repositories(site: Site) -> set[str]:
    """The Git repositories that Applications of Ratchet's own projects follow; empty without a cluster or Argo CD.

    No others: a push asks the server with the release's token, which is nobody else's business.
    """
    if site.cluster_url is None:
        return set()
    try:
        with Api.of(site.cluster_url) as api:
            applications = api.items("/apis/argoproj.io/v1alpha1/applications")
    except (UserError, httpx.HTTPError):  # the check of the cluster says so
        return set()
    sources = [
        source
        for each in applications
        if str(each["spec"].get("project", "")).partition("-")[0] == "ratchet"
        for source in [each["spec"].get("source"), *each["spec"].get("sources", [])]
        if source and "chart" not in source
    ]
    return {source["repoURL"] for source in sources}


def metric_queries(site: Site) -> list[tuple[str, str, str]]:
    """Name, Prometheus' address and query of the Canary's metrics, asked about the primary's pods, which always run.

    Flagger fills in `{{ namespace }}`, `{{ target }}` and `{{ interval }}`.
    """
    if site.cluster_url is None:
        return []
    release = site.config.release_adapter
    with Api.of(site.cluster_url) as api:
        templates = api.items(f"/apis/flagger.app/v1beta1/namespaces/{release.namespace}/metrictemplates")
    words = {"namespace": release.namespace, "target": f"{release.canary}-primary", "interval": "5m"}
    found = []
    for each in templates:
        query = each["spec"]["query"]
        for name, value in words.items():
            query = query.replace(f"{{{{ {name} }}}}", value)
        found.append((each["metadata"]["name"], each["spec"]["provider"]["address"], query))
    return found


def _flagger(api: Api) -> dict[str, Any] | None:
    found = api.items("/apis/apps/v1/deployments", labelSelector="app.kubernetes.io/name=flagger")
    return found[0] if found else None


def _may_get(api: Api, user: str, namespace: str, group: str, kind: str) -> bool:
    asked = {"namespace": namespace, "verb": "get", "group": group, "resource": kind}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "resourceAttributes": asked},
    }
    answer = api.ask("/apis/authorization.k8s.io/v1/subjectaccessreviews", review) or {}
    return bool(answer.get("status", {}).get("allowed"))


def _containers(deployment: Object) -> list[dict[str, Any]]:
    containers: list[dict[str, Any]] = deployment["spec"]["template"]["spec"]["containers"]
    return containers


def _is_vllm(container: Object) -> bool:
    return [*container.get("command", []), *container.get("args", [])][:2] == ["vllm", "serve"]


def _flag(words: Sequence[str], name: str) -> str | None:
    """The value of -name=VALUE, --name=VALUE or --name VALUE."""
    for word, following in zip(words, [*words[1:], ""], strict=True):
        key, has_value, value = word.lstrip("-").partition("=")
        if word.startswith("-") and key == name:
            return value if has_value else following
    return None


def _numbers(version: str) -> tuple[int, ...]:
    """`v1.31+` as (1, 31): as many leading parts as are numbers."""
    parts = ("".join(sign for sign in part if sign.isdigit()) for part in version.split("."))
    return tuple(int(part) for part in parts if part)


def _selects(policy: Object, labels: Mapping[str, str]) -> bool:
    """Whether the policy governs who may call pods of these labels."""
    types = policy["spec"].get("policyTypes", ["Ingress"])
    return "Ingress" in types and _matches(policy["spec"].get("podSelector") or {}, labels)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls, in the words of a NetworkPolicy: labels of namespace and pod, and the port by number and by name."""

    namespace: Mapping[str, str]
    pod: Mapping[str, str]
    is_inside: bool
    """Whether it is in the policy's own namespace, which a peer without namespaceSelector means."""
    ports: set[Any]


def _ports(api: Api, namespace: str, service: Object, port: int) -> set[Any]:
    """The port of the pods behind a Service's port, by number and by name."""
    target = next(each.get("targetPort", port) for each in service["spec"]["ports"] if each["port"] == port)
    deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
    selector = service["spec"].get("selector", {})
    declared = [
        each
        for deployment in deployments
        if selector.items() <= deployment["spec"]["template"]["metadata"].get("labels", {}).items()
        for container in _containers(deployment)
        for each in container.get("ports", [])
    ]
    numbers = {each["containerPort"] for each in declared if each.get("name") == target}
    names = {each["name"] for each in declared if each["containerPort"] == target and "name" in each}
    return {target, *numbers, *names}


def _admits(policy: Object, caller: Caller) -> bool:
    """Whether a rule of the policy lets the caller in, at its port."""
    for rule in policy["spec"].get("ingress") or []:
        ports = rule.get("ports") or []
        if ports and not any(each.get("port") is None or each["port"] in caller.ports for each in ports):
            continue
        if not rule.get("from") or any(_is_meant(peer, caller) for peer in rule["from"]):
            return True
    return False


def _is_meant(peer: Object, caller: Caller) -> bool:
    if "ipBlock" in peer:
        return False
    of_namespace = peer.get("namespaceSelector")
    is_near = caller.is_inside if of_namespace is None else _matches(of_namespace, caller.namespace)
    return is_near and _matches(peer.get("podSelector") or {}, caller.pod)


def _matches(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all."""
    checks = {
        "In": lambda key, values: labels.get(key) in values,
        "NotIn": lambda key, values: labels.get(key) not in values,
        "Exists": lambda key, values: key in labels,
        "DoesNotExist": lambda key, values: key not in labels,
    }
    return (selector.get("matchLabels") or {}).items() <= labels.items() and all(
        checks[each["operator"]](each["key"], each.get("values") or [])
        for each in selector.get("matchExpressions") or []
    )
