"""Deployments: that their pods are there, and that the Secrets and ConfigMaps that they read are."""

from collections.abc import Iterator, Mapping
from typing import Any

from ratchet.errors import UserError
from ratchet_pipelines.doctor.findings import Finding, Site
from ratchet_pipelines.doctor.kubernetes import Api

Reference = tuple[str, str, str | None]
"""Kind, name and key; without a key any will do."""
OTHERS = ("airflow", "argo")  # namespaces of infra/argocd, where they are
PATHS = {"Secret": "secrets", "ConfigMap": "configmaps"}


def check_workloads(site: Site) -> Iterator[Finding]:
    """Look at the Deployments of Ratchet's namespace, of Airflow's and of Argo's. Secrets' values are not looked at."""
    if site.cluster_url is None:
        return
    with Api.of(site.cluster_url) as api:
        for namespace in (site.config.release_adapter.namespace, *OTHERS):
            deployments = api.items(f"/apis/apps/v1/namespaces/{namespace}/deployments")
            found = [*_absent(api, namespace, deployments), *_not_up(namespace, deployments)]
            yield from found
            if deployments and not found:
                what = f"{len(deployments)} Deployments are up, and what they read is there"
                yield Finding(check=f"workloads.{namespace}", state="ok", what=what)


def _absent(api: Api, namespace: str, deployments: list[dict[str, Any]]) -> Iterator[Finding]:
    readers: dict[Reference, list[str]] = {}
    for deployment in deployments:
        for reference in set(_references(deployment["spec"]["template"]["spec"])):
            readers.setdefault(reference, []).append(deployment["metadata"]["name"])
    for (kind, name, key), names in sorted(readers.items(), key=str):
        try:
            there = api.get(f"/api/v1/namespaces/{namespace}/{PATHS[kind]}/{name}")
        except UserError as error:
            yield Finding(
                check=f"workloads.{namespace}", state="unchecked", what=str(error), do="ask as who may read it"
            )
            return
        keys = {*((there or {}).get("data") or ()), *((there or {}).get("binaryData") or ())}
        if there is None or (key is not None and key not in keys):
            what = f"{', '.join(names)} in {namespace}: no {kind} {name}{f' with the key {key}' if key else ''}"
            do = "make it: docs/argo.md, step 3, and docs/airflow.md, step 4, have the lines"
            yield Finding(check=f"workloads.{namespace}", state="missing", what=what, do=do)


def _references(value: Any) -> Iterator[Reference]:
    """Every Secret and ConfigMap without which a pod of this template does not start."""
    if isinstance(value, list):
        for each in value:
            yield from _references(each)
    elif isinstance(value, Mapping):
        for field, kind, name in (
            ("secretKeyRef", "Secret", "name"),
            ("configMapKeyRef", "ConfigMap", "name"),
            ("secretRef", "Secret", "name"),
            ("configMapRef", "ConfigMap", "name"),
            ("secret", "Secret", "secretName"),
            ("configMap", "ConfigMap", "name"),
        ):
            reference = value.get(field)
            if isinstance(reference, Mapping) and name in reference and not reference.get("optional"):
                yield kind, reference[name], reference.get("key")
        for each in value.values():
            yield from _references(each)


def _not_up(namespace: str, deployments: list[dict[str, Any]]) -> Iterator[Finding]:
    for deployment in deployments:
        name, status = deployment["metadata"]["name"], deployment.get("status", {})
        wanted, there = int(deployment["spec"].get("replicas", 1)), int(status.get("availableReplicas", 0))
        if there < wanted:
            why = next((each["message"] for each in status.get("conditions", []) if each["status"] == "False"), "")
            what = f"{name} in {namespace}: {there} of {wanted} pods are available{f' ({why})' if why else ''}"
            do = f"kubectl -n {namespace} describe deployment {name}, and its pods"
            yield Finding(check=f"workloads.{namespace}", state="missing", what=what, do=do)
