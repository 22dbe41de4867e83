"""Connect the scheduler model to the rehearsal cluster: Deployments, the route, webhooks over HTTP."""

import copy
import time
import uuid
from dataclasses import replace

import httpx

from ratchet.rehearsal.canary_spec import TOTAL_WEIGHT, Canary, Hook, Metric, read_canary
from ratchet.rehearsal.cluster import Cluster, Object, spec_hash, timestamp
from ratchet.rehearsal.flagger import Phase, Readiness, Status
from ratchet.rehearsal.prometheus import ask, measure

EVENT_TIMEOUT_S = 5.0
PASSING = (200, 201, 202)  # 204 fails: Flagger compares with 202
RETRIED_ABOVE, TOO_MANY_REQUESTS = 500, 429
PROMOTED = {
    "Initialized": ("True", "Deployment initialization completed."),
    "Succeeded": ("True", "Canary analysis completed successfully, promotion finished."),
    "Failed": ("False", "Canary analysis failed, Deployment scaled to zero."),
}


class ClusterWorld:
    """One Canary's surroundings. `name` is the Canary's, and by the chart's convention its target's.

    `has_prometheus`: one runs at the address of the MetricTemplates, and is asked.
    """

    def __init__(self, cluster: Cluster, name: str, has_prometheus: bool = False) -> None:
        self.cluster = cluster
        self.has_prometheus = has_prometheus
        self.name = name
        self.primary = f"{name}-primary"
        self.client = httpx.Client(trust_env=False)

    def canary(self) -> Canary | None:
        resource = self.cluster.get("Canary", self.name)
        return read_canary(resource) if resource else None

    def status(self) -> Status:
        """Return the Canary's status, from which a restarted scheduler resumes."""
        canary = self.cluster.get("Canary", self.name)
        known = canary["status"] if canary else {}
        return Status(
            phase=known.get("phase", ""),
            failed_checks=known.get("failedChecks", 0),
            canary_weight=known.get("canaryWeight", 0),
            last_applied_spec=known.get("lastAppliedSpec", ""),
            last_promoted_spec=known.get("lastPromotedSpec", ""),
        )

    def target_spec(self) -> str:
        return spec_hash(self._deployment(self.name)["spec"]["template"])

    def target_readiness(self) -> Readiness:
        return readiness(self._deployment(self.name))

    def primary_readiness(self) -> Readiness:
        return readiness(self._deployment(self.primary))

    def canary_weight(self) -> int:
        route = self.cluster.get("HTTPRoute", self.name)
        return 0 if route is None else weights(route)[1]

    def set_route(self, canary_weight: int) -> None:
        self.cluster.apply(self._route(canary_weight))

    def scale_target(self, replicas: int) -> None:
        self.cluster.update("Deployment", self.name, lambda stored: stored["spec"].update(replicas=replicas))

    def create_primary(self) -> None:
        if self.cluster.get("Deployment", self.primary):
            return
        target = self._deployment(self.name)
        primary = {**target, "metadata": {"name": self.primary, "labels": {"app": self.primary}}}
        primary["spec"] |= {
            "replicas": max(1, target["spec"]["replicas"]),
            "selector": {"matchLabels": {"app": self.primary}},
            "template": self._primary_template(target["spec"]["template"]),
        }
        self.cluster.apply(primary)
        # Flagger leaves the target running until the primary is ready. Here no user is served before that, and a
        # second process would only slow down the first.
        self.scale_target(0)

    def promote(self) -> None:
        template = self._primary_template(self._deployment(self.name)["spec"]["template"])
        self.cluster.update("Deployment", self.primary, lambda stored: stored["spec"].update(template=template))

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        place = {"name": self.name, "namespace": self.cluster.namespace}
        payload = place | {"phase": phase, "checksum": checksum, "metadata": dict(hook.metadata)}
        for _ in range(1 + hook.retries):
            try:
                status = self.client.post(hook.url, json=payload, timeout=hook.timeout_s).status_code
            except httpx.TransportError as error:
                self.cluster.log("flagger", f"{hook.type} webhook {hook.url} unreachable: {error!r}")
                continue
            if status != TOO_MANY_REQUESTS and status < RETRIED_ABOVE:
                return status in PASSING
        return False

    def measure(self, metric: Metric) -> float | None:
        if self.has_prometheus:
            template = self.cluster.get("MetricTemplate", metric.template)
            words = {"namespace": self.cluster.namespace, "target": self.name, "interval": metric.interval}
            return ask(self.client, template, words) if template else None
        url = self.cluster.endpoint(self.name)
        try:
            return measure(metric.name, self.client.get(f"{url}/metrics").text) if url else None
        except httpx.TransportError:
            return None

    def record(self, text: str, phase: Phase, checksum: str, is_warning: bool) -> None:
        self.cluster.log("flagger", text)
        canary = self.canary()
        kind = "Warning" if is_warning else "Normal"
        event = {"eventMessage": text, "eventType": kind, "timestamp": str(time.time_ns() // 1_000_000)}
        for hook in canary.hooks_of("event") if canary else ():
            metadata = tuple((dict(hook.metadata) | event).items())
            self.call_hook(replace(hook, metadata=metadata, timeout_s=EVENT_TIMEOUT_S), phase, checksum)

    def publish(self, status: Status) -> None:
        self.cluster.update("Canary", self.name, lambda stored: _write_status(stored, status))

    def _deployment(self, name: str) -> Object:
        deployment = self.cluster.get("Deployment", name)
        if deployment is None:
            raise LookupError(f"Deployment {name} is not in the rehearsal cluster")
        return deployment

    def _primary_template(self, template: Object) -> Object:
        primary = copy.deepcopy(template)
        primary["metadata"]["labels"]["app"] = self.primary
        # Flagger's own way to force a rolling update of the primary.
        primary["metadata"].setdefault("annotations", {})["flagger-id"] = str(uuid.uuid4())
        return primary

    def _route(self, canary_weight: int) -> Object:
        canary = self.cluster.get("Canary", self.name)
        service = canary["spec"]["service"] if canary else {}
        shares = {self.primary: TOTAL_WEIGHT - canary_weight, f"{self.name}-canary": canary_weight}
        backends = [
            {"group": "", "kind": "Service", "name": name, "port": service.get("port", 80), "weight": weight}
            for name, weight in shares.items()
        ]
        return {
            "apiVersion": "gateway.networking.k8s.io/v1",
            "kind": "HTTPRoute",
            "metadata": {"name": self.name},
            "spec": {
                "parentRefs": service.get("gatewayRefs", []),
                "hostnames": service.get("hosts", []),
                "rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}], "backendRefs": backends}],
            },
        }


def weights(route: Object) -> tuple[int, int]:
    """Return the primary's and the canary's weight in an HTTPRoute of Flagger's."""
    primary, canary = route["spec"]["rules"][0]["backendRefs"]
    return primary["weight"], canary["weight"]


def readiness(deployment: Object) -> Readiness:
    """Return a Deployment's readiness by Flagger's rule: rolled out, old pods gone, available; or past its deadline."""
    status, wanted = deployment["status"], deployment["spec"]["replicas"]
    if status.get("observedGeneration", 0) < deployment["metadata"]["generation"]:
        return Readiness.WAITING
    if any(condition.get("reason") == "ProgressDeadlineExceeded" for condition in status.get("conditions", ())):
        return Readiness.STUCK
    counts = (status["replicas"], status["updatedReplicas"], status["availableReplicas"])
    return Readiness.READY if counts == (wanted, wanted, wanted) else Readiness.WAITING


def _write_status(canary: Object, status: Status) -> None:
    promoted, message = PROMOTED.get(status.phase, ("Unknown", f"{status.phase}."))
    now = timestamp()
    before = canary["status"].get("conditions", [{}])[0]
    since = before["lastTransitionTime"] if before.get("status") == promoted else now
    canary["status"] = {
        "phase": status.phase,
        "failedChecks": status.failed_checks,
        "canaryWeight": status.canary_weight,
        "iterations": 0,
        "lastAppliedSpec": status.last_applied_spec,
        "lastPromotedSpec": status.last_promoted_spec,
        "lastTransitionTime": now,
        "conditions": [
            {
                "type": "Promoted",
                "status": promoted,
                "reason": status.phase,
                "message": message,
                "lastUpdateTime": now,
                "lastTransitionTime": since,
            }
        ],
    }
