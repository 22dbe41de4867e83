"""Read what runs: the Canary, its two Deployments and its route, over the Kubernetes REST API."""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import httpx

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")  # where Kubernetes puts a pod's credentials
TIMEOUT_S = 5.0


class ClusterUnavailable(Exception):
    """The cluster does not answer, or has not made these objects yet. It may be back at the next look."""


@dataclass(frozen=True, kw_only=True)
class ClusterSnapshot:
    """One look at the cluster: the Canary first, then the Deployments, so that a phase is never newer than they."""

    uid: str
    phase: str
    failed_checks: int
    canary_weight: int
    last_applied_spec: str
    last_promoted_spec: str
    target: AdapterRef
    primary: AdapterRef
    weight: int
    """Percent of requests that the route sends to the canary now."""


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
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S, **_credentials(url))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._client.close()

    def look(self) -> ClusterSnapshot:
        """Return one snapshot. Raises ClusterUnavailable while an object is missing; UserError on 401 and 403."""
        canary = self._get("flagger.app/v1beta1", "canaries", self.canary)
        status = canary.get("status", {})
        return ClusterSnapshot(
            uid=canary["metadata"].get("uid", self.canary),
            phase=status.get("phase", "Initializing"),
            failed_checks=int(status.get("failedChecks", 0)),
            canary_weight=int(status.get("canaryWeight", 0)),
            last_applied_spec=str(status.get("lastAppliedSpec", "")),
            last_promoted_spec=str(status.get("lastPromotedSpec", "")),
            primary=self._adapter_of(f"{self.canary}-primary"),
            target=self._adapter_of(self.canary),
            weight=self._route_weight(),
        )

    def _adapter_of(self, deployment: str) -> AdapterRef:
        template = self._get("apps/v1", "deployments", deployment)["spec"]["template"]
        adapter = AdapterRef.of_annotations(template["metadata"].get("annotations", {}))
        if adapter is None:
            raise UserError(f"Deployment {deployment} has no ratchet.dev/adapter-* annotations; deploy the chart's")
        return adapter

    def _route_weight(self) -> int:
        rules = self._get("gateway.networking.k8s.io/v1", "httproutes", self.canary)["spec"]["rules"]
        weights = {ref["name"]: int(ref.get("weight", 1)) for ref in rules[0]["backendRefs"]}
        total = sum(weights.values())
        return round(100 * weights.get(f"{self.canary}-canary", 0) / total) if total else 0

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


def _credentials(url: str) -> dict[str, Any]:
    if not url.startswith("https") or not SERVICE_ACCOUNT.is_dir():
        return {}
    token = (SERVICE_ACCOUNT / "token").read_text()
    context = ssl.create_default_context(cafile=os.fspath(SERVICE_ACCOUNT / "ca.crt"))
    return {"headers": {"Authorization": f"Bearer {token}"}, "verify": context}
