"""The cluster in memory: what Flagger's scheduler model changes, and what gate and reconciler read."""

from dataclasses import dataclass, field, replace

from ratchet.adapter_ref import AdapterRef
from ratchet.rehearsal.canary_spec import Canary, Hook, Metric
from ratchet.rehearsal.flagger import Phase, Readiness, Scheduler, Status
from ratchet.release.reconciler.kubernetes import ClusterSnapshot
from ratchet_pipelines.rehearse.memory import MemoryGit


@dataclass
class VirtualCluster:
    """One Canary, its two Deployments and its route. It refuses every hook; a subclass overrides `call_hook`."""

    spec: Canary
    git: MemoryGit
    weight: int = 0
    target: AdapterRef = field(init=False)
    primary: AdapterRef = field(init=False)
    status: Status = field(default_factory=Status)
    readiness: dict[str, Readiness] = field(
        default_factory=lambda: dict.fromkeys(("target", "primary"), Readiness.READY)
    )

    def __post_init__(self) -> None:
        self.target = self.primary = self.git.adapter
        self.canary = self.spec.name
        self.scheduler = Scheduler(self)
        self.tick()

    def tick(self) -> None:
        self.scheduler.tick(self.spec)

    def sync(self) -> None:
        """Apply what Git names to the target and the Canary, as Argo CD does."""
        self.target = self.git.adapter
        self.spec = replace(self.spec, skip_analysis=self.git.skip_analysis)

    def restart_flagger(self) -> None:
        self.scheduler = Scheduler(self)
        self.scheduler.status = self.status

    def look(self) -> ClusterSnapshot:
        return ClusterSnapshot(
            uid="virtual",
            phase=self.status.phase,
            failed_checks=self.status.failed_checks,
            canary_weight=self.status.canary_weight,
            last_applied_spec=self.status.last_applied_spec,
            last_promoted_spec=self.status.last_promoted_spec,
            target=self.target,
            primary=self.primary,
            weight=self.weight,
        )

    # The scheduler's FlaggerCluster.

    def target_spec(self) -> str:
        return self.target.digest

    def target_readiness(self) -> Readiness:
        return self.readiness["target"]

    def primary_readiness(self) -> Readiness:
        return self.readiness["primary"]

    def canary_weight(self) -> int:
        return self.weight

    def set_route(self, canary_weight: int) -> None:
        self.weight = canary_weight

    def scale_target(self, replicas: int) -> None: ...

    def create_primary(self) -> None: ...

    def promote(self) -> None:
        self.primary = self.target

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        return False

    def measure(self, metric: Metric) -> float | None:
        return None

    def record(self, text: str, phase: Phase, checksum: str, is_warning: bool) -> None: ...

    def publish(self, status: Status) -> None:
        self.status = status
