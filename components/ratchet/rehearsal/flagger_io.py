"""Connect the scheduler model to the rehearsal cluster: Deployments, Services, the route, webhooks over HTTP."""

import time
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import httpx

from ratchet.rehearsal import http_route, workloads
from ratchet.rehearsal.canary_spec import Canary, Hook, Metric, read_canary
from ratchet.rehearsal.canary_status import Phase, Status, read_status, written
from ratchet.rehearsal.cluster import Cluster, Object
from ratchet.rehearsal.flagger import ClusterError, Readiness
from ratchet.rehearsal.prometheus import ask, measure

PASSING = (200, 201, 202)  # 204 fails: Flagger compares with 202
RETRIED_ABOVE, TOO_MANY_REQUESTS = 500, 429
RETRY_WAIT_S = 1.0
UNTRACKED = "flagger.app/config-tracking"


class ClusterWorld:
    """One Canary's surroundings. `name` is the Canary's, and by the chart's convention its target's.

    `has_prometheus`: one runs at the address of the MetricTemplates, and is asked.
    """

    def __init__(self, cluster: Cluster, name: str, has_prometheus: bool = False) -> None:
        self.cluster = cluster
        self.has_prometheus = has_prometheus
        self.name = name
        self.primary = f"{name}-primary"
        self.client = httpx.Client(trust_env=False, follow_redirects=True)

    def spec(self) -> Canary | None:
        resource = self.cluster.get("Canary", self.name)
        return read_canary(resource) if resource else None

    def status(self) -> Status:
        return read_status(self._get("Canary", self.name))

    def publish(self, status: Status) -> None:
        now = self.cluster.now()

        def change(stored: Object) -> None:
            stored["status"] = written(status, stored["status"], now)

        self.cluster.update("Canary", self.name, change, "status")

    def target_spec(self) -> str:
        return workloads.spec_hash(self._target()["spec"]["template"])

    def target_configs(self) -> Mapping[str, str]:
        tracked = self._tracked(self._target())
        return {f"{kind.lower()}/{name}": workloads.checksum(config) for (kind, name), config in tracked.items()}

    def target_readiness(self) -> Readiness:
        return workloads.readiness(self._target())

    def primary_readiness(self) -> Readiness:
        return workloads.readiness(self._get("Deployment", self.primary))

    def create_primary(self) -> None:
        if not self.cluster.get("Deployment", self.primary):
            target = self._target()
            self.cluster.create(workloads.primary_of(target, self._primary_template(target)))

    def promote(self) -> None:
        target = self._target()
        template = self._primary_template(target)
        copied = {key: target["spec"][key] for key in workloads.COPIED if key in target["spec"]}
        if self._scaler() is None:
            copied["replicas"] = target["spec"]["replicas"]

        def change(stored: Object) -> None:
            stored["spec"] |= {**copied, "template": template}

        self.cluster.update("Deployment", self.primary, change)

    def scale_target_to_zero(self) -> None:
        self._scale(0)

    def scale_target_up(self) -> None:
        """Give the target the replicas that it has, else those of its autoscaler or of the primary."""
        if own := self._target()["spec"]["replicas"]:
            self._scale(own)
        elif scaler := self._scaler():
            self._scale(scaler["spec"].get("minReplicas") or 1)
        else:
            self._scale(self._get("Deployment", self.primary)["spec"]["replicas"] or 1)

    def reconcile_scaler(self, is_update: bool) -> None:
        scaler = self._scaler()
        if scaler is None:
            return
        name = scaler["metadata"]["name"] + workloads.PRIMARY
        aim = scaler["spec"]["scaleTargetRef"] | {"name": self.primary}
        ref = self._get("Canary", self.name)["spec"]["autoscalerRef"]
        spec = scaler["spec"] | {"scaleTargetRef": aim} | ref.get("primaryScalerReplicas", {})
        known = self.cluster.get(scaler["kind"], name)
        if known is None:
            self.cluster.create({**scaler, "metadata": {"name": name}, "spec": spec, "status": {}})
        elif is_update and known["spec"] != spec:
            self.cluster.update(scaler["kind"], name, lambda stored: stored.update(spec=spec))

    def create_arm_services(self) -> None:
        self._create_service(f"{self._apex()}-canary", self.name)
        self._create_service(f"{self._apex()}-primary", self.primary)

    def create_apex_service(self) -> None:
        self._create_service(self._apex(), self.primary)

    def reconcile_route(self) -> None:
        canary, name = self._get("Canary", self.name), self._apex()
        known, spec = self.cluster.get("HTTPRoute", name), http_route.route_spec(canary, *http_route.whole(0))
        if known is None:
            api = "gateway.networking.k8s.io/v1"
            self.cluster.create({"apiVersion": api, "kind": "HTTPRoute", "metadata": {"name": name}, "spec": spec})
        elif http_route.differs(known, canary):
            self.cluster.update("HTTPRoute", name, lambda stored: stored.update(spec=spec))

    def weights(self) -> tuple[int, int]:
        route = self._get("HTTPRoute", self._apex())
        if why := http_route.refusal(route):
            raise ClusterError(why)
        return http_route.weights(route)

    def set_weights(self, primary: int, canary: int) -> None:
        self._get("HTTPRoute", self._apex())
        spec = http_route.route_spec(self._get("Canary", self.name), primary, canary)
        self.cluster.update("HTTPRoute", self._apex(), lambda stored: stored.update(spec=spec))

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        place = {"name": self.name, "namespace": self.cluster.namespace}
        payload = place | {"phase": phase, "checksum": checksum, "metadata": dict(hook.metadata)}
        for attempt in range(1 + hook.retries):
            time.sleep(RETRY_WAIT_S if attempt else 0.0)
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
        canary = self.spec()
        kind = "Warning" if is_warning else "Normal"
        event = {"eventMessage": text, "eventType": kind, "timestamp": str(time.time_ns() // 1_000_000)}
        for hook in canary.hooks_of("event") if canary else ():
            metadata = tuple((dict(hook.metadata) | event).items())
            self.call_hook(replace(hook, metadata=metadata), phase, checksum)

    def _target(self) -> Object:
        return self._get("Deployment", self.name)

    def _apex(self) -> str:
        return http_route.apex_name(self._get("Canary", self.name))

    def _get(self, kind: str, name: str) -> Object:
        found = self.cluster.get(kind, name)
        if found is None:
            raise ClusterError(f"{kind} {name}.{self.cluster.namespace} get query error: not found")
        return found

    def _scale(self, replicas: int) -> None:
        self._target()
        self.cluster.update("Deployment", self.name, lambda stored: stored["spec"].update(replicas=replicas), "patch")

    def _scaler(self) -> Object | None:
        ref = self._get("Canary", self.name)["spec"].get("autoscalerRef")
        return self._get(ref["kind"], ref["name"]) if ref else None

    def _tracked(self, deployment: Object) -> dict[tuple[str, str], Object]:
        """Return the ConfigMaps and Secrets that the Deployment's pods read, but for those that say no to tracking."""
        found = {}
        for (kind, name), is_required in workloads.config_refs(deployment["spec"]["template"]).items():
            config = self._get(kind, name) if is_required else self.cluster.get(kind, name)
            annotations = config["metadata"].get("annotations", {}) if config else {}
            if config and not str(annotations.get(UNTRACKED, "")).startswith("disable"):
                found[kind, name] = config
        return found

    def _primary_template(self, target: Object) -> Object:
        """Give the primary configs of its own, and return its pod template."""
        tracked = self._tracked(target)
        for (kind, name), config in tracked.items():
            copied: dict[str, Any] = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name + workloads.PRIMARY}}
            self.cluster.update_or_create(copied | {"data": config.get("data", {})})
        return workloads.primary_template(target, set(tracked), str(uuid.uuid4()))

    def _create_service(self, name: str, pods: str) -> None:
        if not self.cluster.get("Service", name):
            spec = {"selector": {workloads.LABEL: pods}}
            self.cluster.create({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
