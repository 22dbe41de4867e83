"""The cluster in memory, on a clock of the caller's: what Flagger's model changes, and gate and reconciler read."""

import copy
from dataclasses import dataclass, field

from ratchet.adapter_ref import PREFIX
from ratchet.errors import UserError
from ratchet.rehearsal import http_route, workloads
from ratchet.rehearsal.canary_spec import Canary, Hook, Metric, read_canary
from ratchet.rehearsal.canary_status import Phase
from ratchet.rehearsal.cluster import Cluster, Object
from ratchet.rehearsal.flagger import ClusterError, Readiness, tick
from ratchet.rehearsal.flagger_io import ClusterWorld
from ratchet.release.reconciler.kubernetes import NONCE, ClusterSnapshot, ClusterUnavailable, snapshot_of
from ratchet_pipelines.rehearse.memory import MemoryGit

FIRST_TICKS = 2  # primary is made in the first, and ready in the second


@dataclass(frozen=True)
class Manifests:
    """What the chart renders for one Canary; the adapter in it is replaced by the one that Git names."""

    deployment: Object
    canary: Object
    others: tuple[Object, ...] = ()
    """What the sync applies besides, as an autoscaler."""

    @property
    def spec(self) -> Canary:
        return read_canary(self.canary)


@dataclass
class VirtualCluster(ClusterWorld):
    """One Canary, its Deployments and its route. It refuses every hook; a subclass overrides `call_hook`."""

    manifests: Manifests
    git: MemoryGit
    is_route_accepted: bool = True
    readiness: dict[str, Readiness] = field(
        default_factory=lambda: dict.fromkeys(("target", "primary"), Readiness.READY)
    )
    now: float = 0.0
    last_warning: str = ""

    def __post_init__(self) -> None:
        spec = self.manifests.spec
        super().__init__(Cluster(spec.namespace, clock=lambda: self.now), spec.name)
        self.client.close()  # nothing is asked over HTTP
        self.canary = spec.name
        self.sync()
        for _ in range(FIRST_TICKS):
            self.tick()
        if self.status().phase != "Initialized":
            raise UserError(
                f"Canary {spec.name} is {self.status().phase} after {FIRST_TICKS} ticks: {self.last_warning}"
            )

    def tick(self) -> None:
        """Let kubelet and gateway do their part, and Flagger tick once."""
        self.settle()
        spec = self.spec()
        assert spec
        tick(self, spec)

    def settle(self) -> None:
        """Write what kubelet and gateway write once they have seen everything."""
        for name, arm in ((self.name, "target"), (self.primary, "primary")):
            if deployment := self.cluster.get("Deployment", name):
                self._put_status(deployment, workloads.kubelet_status(deployment, self.readiness[arm]))
        if route := self.cluster.get("HTTPRoute", self.name):
            self._put_status(route, http_route.gateway_status(route, self.is_route_accepted))

    def sync(self) -> None:
        """Apply what Git names, as Argo CD does: the Deployment's wave first, then the Canary's."""
        self.sync_deployment()
        self.sync_canary()

    def sync_deployment(self) -> None:
        made = copy.deepcopy(self.manifests.deployment)
        annotations = made["spec"]["template"]["metadata"].setdefault("annotations", {})
        annotations |= {PREFIX + key: value for key, value in self.git.adapter.model_dump().items()}
        if self.git.values.nonce:
            annotations[NONCE] = self.git.values.nonce
        self.cluster.apply(made)
        for other in self.manifests.others:
            self.cluster.apply(other)

    def sync_canary(self) -> None:
        spec = self.manifests.canary["spec"] | {"skipAnalysis": self.git.values.skip_analysis}
        self.cluster.apply({**self.manifests.canary, "spec": spec})

    def look(self) -> ClusterSnapshot:
        names = (("Canary", self.name), ("Deployment", self.name), ("Deployment", self.primary))
        try:
            return snapshot_of(*(self._get(kind, name) for kind, name in (*names, ("HTTPRoute", self.name))))
        except ClusterError as missing:
            raise ClusterUnavailable(str(missing)) from None

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        return False

    def measure(self, metric: Metric) -> float | None:
        return None

    def record(self, text: str, phase: Phase, checksum: str, is_warning: bool) -> None:
        self.last_warning = text if is_warning else self.last_warning

    def _put_status(self, seen: Object, status: Object) -> None:
        if seen["status"] != status:
            name = seen["metadata"]["name"]
            self.cluster.update(seen["kind"], name, lambda stored: stored.update(status=status), "status")
