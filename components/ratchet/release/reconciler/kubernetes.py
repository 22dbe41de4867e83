"""Read what runs: the Canary, its two Deployments and its route, over the Kubernetes REST API."""

import os
import re
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import httpx

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes puts a pod's credentials
TIMEOUT_S = 5.0
NONCE = "ratchet.dev/rollout-nonce"
UNITS_S = {"s": 1.0, "m": 60.0}
DEFAULT_INTERVAL_S = 60.0
Object = dict[str, Any]


class ClusterUnavailable(Exception):
    """The cluster does not answer, or has not made these objects yet. It may be back at the next look."""


@dataclass(frozen=True, kw_only=True)
class ClusterSnapshot:
    """One look at the cluster: the Canary first, then the Deployments, so that a phase is never newer than they."""

    uid: str
    phase: str
    failed_checks: int
    canary_weight: int
    """Percent of traffic on the canary by the Canary's status, which a route that was written anew does not follow."""
    last_applied_spec: str
    last_promoted_spec: str
    target: AdapterRef
    primary: AdapterRef
    weight: int
    """Percent of requests that the route sends to the canary now."""
    condition_at: str = ""
    """When the phase was entered: `lastUpdateTime` of the condition `Promoted`, which ticks within a phase keep."""
    skip_analysis: bool = False
    interval_s: float = DEFAULT_INTERVAL_S
    """Between two ticks of Flagger."""
    target_nonce: str = ""
    primary_nonce: str = ""
    is_target_up: bool = True
    """The target has replicas, and all of them are available."""
    is_primary_up: bool = True
    """All of the primary's replicas run its template and are available."""


class Cluster(Protocol):
    """One Canary and what belongs to it, to look at."""

    canary: str
    """Its name."""

    def look(self) -> ClusterSnapshot:
        """Raises ClusterUnavailable while there is nothing to see."""


class ClusterReader:
    """Read one Canary, its Deployments and its route over the Kubernetes API."""

    def __init__(self, url: str, namespace: str, canary: str) -> None:
        self.namespace, self.canary = namespace, canary
        self._client = api_client(url)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def look(self) -> ClusterSnapshot:
        """Return one snapshot. Raises ClusterUnavailable while an object is missing; UserError on 401 and 403."""
        canary = self._get("flagger.app/v1beta1", "canaries", self.canary)
        primary = self._get("apps/v1", "deployments", f"{self.canary}-primary")
        target = self._get("apps/v1", "deployments", self.canary)
        route = self._get("gateway.networking.k8s.io/v1", "httproutes", self.canary)
        return snapshot_of(canary, target, primary, route)

    def _get(self, api: str, kind: str, name: str) -> dict[str, Any]:
        path = f"/apis/{api}/namespaces/{self.namespace}/{kind}/{name}"
        try:
            answer = self._client.get(path)
        except httpx.TransportError as error:
            raise ClusterUnavailable(f"{self._client.base_url} does not answer: {error}") from None
        if answer.status_code in (401, 403):
            raise UserError(f"{path}: {answer.status_code}; give this service account leave to get {kind}")
        if answer.status_code != 200:
            raise ClusterUnavailable(f"{path}: {answer.status_code}")
        resource: dict[str, Any] = answer.json()
        return resource


def api_client(url: str) -> httpx.Client:
    """Return a client for the Kubernetes API: in a pod with its service account's token and the cluster's CA."""
    return httpx.Client(base_url=url, timeout=TIMEOUT_S, auth=_ServiceAccount(), verify=_verify(url))


def snapshot_of(canary: Object, target: Object, primary: Object, route: Object) -> ClusterSnapshot:
    """Read a snapshot from the objects. Raises UserError for Deployments that are not the chart's."""
    status, spec = canary.get("status", {}), canary.get("spec", {})
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    return ClusterSnapshot(
        uid=canary["metadata"].get("uid", canary["metadata"]["name"]),
        phase=status.get("phase", "Initializing"),
        failed_checks=int(status.get("failedChecks", 0)),
        canary_weight=int(status.get("canaryWeight", 0)),
        last_applied_spec=str(status.get("lastAppliedSpec", "")),
        last_promoted_spec=str(status.get("lastPromotedSpec", "")),
        condition_at=str(conditions.get("Promoted", {}).get("lastUpdateTime", "")),
        skip_analysis=bool(spec.get("skipAnalysis", False)),
        interval_s=_seconds(spec.get("analysis", {}).get("interval", "")),
        target=_adapter_of(target),
        primary=_adapter_of(primary),
        target_nonce=_annotations(target).get(NONCE, ""),
        primary_nonce=_annotations(primary).get(NONCE, ""),
        is_target_up=_is_rolled_out(target) and target["spec"].get("replicas", 1) > 0,
        is_primary_up=_is_rolled_out(primary),
        weight=_route_weight(route, canary["metadata"]["name"]),
    )


def _annotations(deployment: Object) -> dict[str, str]:
    found: dict[str, str] = deployment["spec"]["template"]["metadata"].get("annotations", {})
    return found


def _adapter_of(deployment: Object) -> AdapterRef:
    adapter = AdapterRef.of_annotations(_annotations(deployment))
    if adapter is None:
        name = deployment["metadata"]["name"]
        raise UserError(f"Deployment {name} has no ratchet.dev/adapter-* annotations; deploy the chart's")
    return adapter


def _is_rolled_out(deployment: Object) -> bool:
    status, wanted = deployment.get("status", {}), deployment["spec"].get("replicas", 1)
    counts = {status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")}
    return counts == {wanted} and status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)


def _route_weight(route: Object, name: str) -> int:
    weights = {ref["name"]: int(ref.get("weight", 1)) for ref in route["spec"]["rules"][0]["backendRefs"]}
    total = sum(weights.values())
    return round(100 * weights.get(f"{name}-canary", 0) / total) if total else 0


def _seconds(interval: str) -> float:
    """Return Flagger's interval in seconds: a minute by default."""
    found = re.fullmatch(r"(\d+)([sm])", interval)
    return int(found[1]) * UNITS_S[found[2]] if found else DEFAULT_INTERVAL_S


def _verify(url: str) -> ssl.SSLContext | bool:
    is_in_cluster = url.startswith("https") and SERVICE_ACCOUNT.is_dir()
    return ssl.create_default_context(cafile=os.fspath(SERVICE_ACCOUNT / "ca.crt")) if is_in_cluster else True


class _ServiceAccount(httpx.Auth):
    """Send the pod's token, read anew for each request: Kubernetes replaces the file before the token expires."""

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        if request.url.scheme == "https" and SERVICE_ACCOUNT.is_dir():
            request.headers["Authorization"] = f"Bearer {(SERVICE_ACCOUNT / 'token').read_text().strip()}"
        yield request
