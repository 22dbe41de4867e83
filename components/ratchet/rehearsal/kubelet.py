"""A small model of the kubelet: one router process per Deployment, replaced without dropping traffic.

A change of the pod template starts a new process, waits until it is ready, points the endpoint at it, and only then
stops the old one. A Deployment's replicas count as one if above zero.
"""

import base64
import os
import subprocess
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from ratchet.adapter_ref import PREFIX, AdapterRef
from ratchet.errors import UserError
from ratchet.http_service import free_ports
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.rehearsal import child_process
from ratchet.rehearsal.cluster import Cluster, Object
from ratchet.rehearsal.workloads import spec_hash

HOST = "127.0.0.1"
PASS_S = 0.1
PROBE_TIMEOUT_S = 1.0
PROBE_S = 1.0  # between two looks at a ready pod, and between two tries at a failing one
FAILURE_THRESHOLD = 3  # Kubernetes' default: one slow answer does not take a pod out of service
DRAIN_S = 0.5  # the preStop of the chart's pods: the gateway forgets a pod before the pod stops listening
GRACE_S = 10.0


@dataclass
class Pod:
    """One router process."""

    spec: str
    """Hash of its pod template."""
    adapter: AdapterRef | None
    url: str
    log: Path
    process: subprocess.Popen[bytes]
    is_ready: bool = False
    failures: int = 0
    probe_at: float = 0.0
    sync_at: float = 0.0
    stop_at: float = 0.0
    kill_at: float = float("inf")


@dataclass
class Workload:
    """The pods of one Deployment: the one that serves, and the one that replaces it once ready."""

    serving: Pod | None = None
    coming: Pod | None = None
    retry_at: float = 0.0
    incomplete_since: float | None = None
    last_error: str = ""
    """The last error logged, so that it is logged once."""

    @property
    def pods(self) -> list[Pod]:
        return [pod for pod in (self.serving, self.coming) if pod]


@dataclass
class Kubelet:
    """Keep processes as the cluster's Deployments ask for. `run` until the event is set, then `close`."""

    cluster: Cluster
    pool: AdapterPool
    logs: Path
    workloads: dict[str, Workload] = field(default_factory=dict)
    leaving: list[Pod] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.client = httpx.Client(timeout=PROBE_TIMEOUT_S, trust_env=False)
        self.logs.mkdir(parents=True, exist_ok=True)

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(PASS_S):
            self.reconcile()

    def reconcile(self) -> None:
        """Make one pass over all Deployments."""
        referenced: set[AdapterRef | None] = set()
        for name in self.cluster.names("Deployment"):
            deployment = self.cluster.get("Deployment", name)
            if deployment is not None:
                workload = self.workloads.setdefault(name, Workload())
                self._reconcile(name, deployment, workload)
                referenced |= {adapter_of(deployment["spec"]["template"]), *(pod.adapter for pod in workload.pods)}
        self._reap()
        referenced |= {pod.adapter for pod in self.leaving}
        with suppress(UserError):  # the pool does not answer; the next pass tries again
            self.pool.keep_only({adapter for adapter in referenced if adapter})

    def close(self) -> None:
        """Stop every process and wait for it."""
        for name, workload in self.workloads.items():
            self.cluster.set_endpoint(name, None)
            self.leaving += workload.pods
        for pod in self.leaving:
            pod.process.terminate()
        deadline = time.monotonic() + GRACE_S
        for pod in self.leaving:
            child_process.wait_or_kill(pod.process, deadline - time.monotonic())
        self.client.close()
        self.pool.close()

    def _reconcile(self, name: str, deployment: Object, workload: Workload) -> None:
        wanted = spec_hash(deployment["spec"]["template"]) if deployment["spec"]["replicas"] else None
        self._remove_ended(name, workload)
        if workload.coming and workload.coming.spec != wanted:
            self._retire(workload.coming)
            workload.coming = None
        if wanted is None and workload.serving:
            self._retire(workload.serving)
            workload.serving = None
        is_covered = any(pod.spec == wanted for pod in workload.pods)
        if wanted and not is_covered and time.monotonic() >= workload.retry_at:
            self._start(name, deployment["spec"]["template"], workload)
        self._probe(name, workload)
        self._report(name, deployment, workload, wanted)

    def _start(self, name: str, template: Object, workload: Workload) -> None:
        workload.retry_at = time.monotonic() + PROBE_S
        try:
            adapter = adapter_of(template)
            if adapter:
                self.pool.ensure(adapter)
            workload.coming = self._spawn(name, template, adapter)
            workload.last_error = ""
        except UserError as error:
            self._log_once(name, workload, str(error))

    def _spawn(self, name: str, template: Object, adapter: AdapterRef | None) -> Pod:
        [port] = free_ports(1, HOST)
        log = self.logs / f"{name}.log"
        environment = os.environ | resolve(template, self.cluster) | {"RATCHET_HOST": HOST, "RATCHET_PORT": str(port)}
        with log.open("ab") as output:
            process = child_process.start("ratchet.router.app", output=output, env=environment)
        return Pod(spec_hash(template), adapter, f"http://{HOST}:{port}", log, process)

    def _remove_ended(self, name: str, workload: Workload) -> None:
        """Remove pods whose process has ended; the next pass starts others."""
        for pod in workload.pods:
            if pod.process.poll() is None:
                continue
            lines = pod.log.read_text(encoding="utf-8", errors="replace").splitlines() or [""]
            self._log_once(name, workload, f"exited {pod.process.returncode}: {lines[-1]}")
            child_process.wait_or_kill(pod.process, 0.0)
            if pod is workload.serving:
                workload.serving = None
            else:
                workload.coming = None

    def _probe(self, name: str, workload: Workload) -> None:
        for pod in workload.pods:
            if time.monotonic() >= pod.probe_at:
                try:
                    answers = self.client.get(f"{pod.url}/readyz").status_code == httpx.codes.OK
                except httpx.TransportError:
                    answers = False
                pod.failures = 0 if answers else pod.failures + 1
                pod.is_ready = pod.failures == 0 or (pod.is_ready and pod.failures < FAILURE_THRESHOLD)
                pod.probe_at = time.monotonic() + (PROBE_S if pod.is_ready else PASS_S)
                self._resync(name, workload, pod)
        if workload.coming and workload.coming.is_ready:
            old, workload.serving, workload.coming = workload.serving, workload.coming, None
            if old:
                self._retire(old)
        serving = workload.serving
        self.cluster.set_endpoint(name, serving.url if serving and serving.is_ready else None)

    def _resync(self, name: str, workload: Workload, pod: Pod) -> None:
        """Load the adapter again if a restarted pool has lost it, as the pool's syncer does on a cluster."""
        if pod.adapter is None or time.monotonic() < pod.sync_at:
            return
        pod.sync_at = time.monotonic() + PROBE_S
        try:
            self.pool.ensure(pod.adapter)
        except UserError as error:
            self._log_once(name, workload, str(error))

    def _report(self, name: str, deployment: Object, workload: Workload, wanted: str | None) -> None:
        updated = [pod for pod in workload.pods if pod.spec == wanted]
        available = [pod for pod in workload.pods if pod.is_ready]
        is_complete = wanted is None or (updated == workload.pods == available and bool(updated))
        now = time.monotonic()
        workload.incomplete_since = None if is_complete else workload.incomplete_since or now
        waited_s = now - (workload.incomplete_since or now)
        is_late = waited_s > deployment["spec"].get("progressDeadlineSeconds", 600)
        status = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": len(workload.pods),
            "updatedReplicas": len(updated),
            "readyReplicas": len(available),
            "availableReplicas": len(available),
            "conditions": [_progressing(deployment, is_complete, is_late, self.cluster.now())],
        }
        if deployment["status"] != status:
            self.cluster.update("Deployment", name, lambda stored: stored.update(status=status))

    def _retire(self, pod: Pod) -> None:
        """Retire a pod: it still answers for DRAIN_S, then is terminated, and killed after GRACE_S."""
        pod.stop_at = time.monotonic() + DRAIN_S
        pod.kill_at = pod.stop_at + GRACE_S
        self.leaving.append(pod)

    def _reap(self) -> None:
        now = time.monotonic()
        for pod in list(self.leaving):
            if pod.process.poll() is not None:
                child_process.wait_or_kill(pod.process, 0.0)
                self.leaving.remove(pod)
            elif now >= pod.kill_at:
                pod.process.kill()
            elif now >= pod.stop_at:
                pod.process.terminate()
                pod.stop_at = float("inf")

    def _log_once(self, name: str, workload: Workload, error: str) -> None:
        if error != workload.last_error:
            workload.last_error = error
            self.cluster.log("kubelet", f"{name}: {error}")


def adapter_of(template: Object) -> AdapterRef | None:
    """Return the adapter that a pod template serves; None for the base model. Raises UserError without annotations."""
    adapter = AdapterRef.of_annotations(template["metadata"].get("annotations", {}))
    if adapter is None:
        raise UserError(f"the pod template lacks an annotation of {PREFIX}*; the chart must render all four")
    return None if adapter.is_base else adapter


def resolve(template: Object, cluster: Cluster) -> Mapping[str, str]:
    """Return the first container's environment: literals, labels by the downward API, keys of Secrets and ConfigMaps.

    Raises UserError for anything else, and for a key that is missing and not optional.
    """
    labels: Mapping[str, str] = template["metadata"].get("labels", {})
    known = {f"metadata.labels['{key}']": value for key, value in labels.items()}
    entries = template["spec"]["containers"][0].get("env", ())
    values = {entry["name"]: _value(entry, known, cluster) for entry in entries}
    return {name: value for name, value in values.items() if value is not None}


def _value(entry: Object, known: Mapping[str, str], cluster: Cluster) -> str | None:
    if "valueFrom" not in entry:
        return str(entry.get("value", ""))
    origin = entry["valueFrom"]
    for kind, key in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        if key in origin:
            return _data(kind, origin[key], cluster)
    path = origin.get("fieldRef", {}).get("fieldPath")
    if path not in known:
        raise UserError(f"env {entry['name']}: the rehearsal resolves literals, labels and Secrets, not {origin}")
    return known[path]


def _data(kind: str, ref: Object, cluster: Cluster) -> str | None:
    data = (cluster.get(kind, ref["name"]) or {}).get("data", {})
    if ref["key"] in data:
        return base64.b64decode(data[ref["key"]]).decode() if kind == "Secret" else str(data[ref["key"]])
    if ref.get("optional"):
        return None
    raise UserError(f"{kind} {ref['name']} has no key {ref['key']}, which a router's environment names")


def _progressing(deployment: Object, is_complete: bool, is_late: bool, now: str) -> dict[str, Any]:
    reason = "NewReplicaSetAvailable" if is_complete else "ReplicaSetUpdated"
    if is_late:
        reason = "ProgressDeadlineExceeded"
    before: Object = next(iter(deployment["status"].get("conditions", ())), {})
    since = before["lastUpdateTime"] if before.get("reason") == reason else now
    return {"type": "Progressing", "status": str(not is_late), "reason": reason, "lastUpdateTime": since}
