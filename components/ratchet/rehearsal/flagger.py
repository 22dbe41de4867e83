"""A small model of Flagger's canary scheduler: one tick as a sequence of guards, with its surroundings injected.

A model for rehearsal, not a rollout engine. It follows Flagger v1.44, `pkg/controller/scheduler.go`: the order of the
checks, the hooks and their phases, failed checks that only add up, and the places where Flagger surprises (kept on
purpose, and listed in tests/rehearsal/scenarios.yaml). Left out, and refused: iterations, A/B matching,
mirroring.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from typing import Literal, Protocol

from ratchet.rehearsal.canary_spec import TOTAL_WEIGHT, Canary, Hook, Metric

Phase = Literal[
    "",
    "Initializing",
    "Initialized",
    "Waiting",
    "Progressing",
    "WaitingPromotion",
    "Promoting",
    "Finalising",
    "Succeeded",
    "Failed",
]
RUNNING: tuple[Phase, ...] = ("Progressing", "WaitingPromotion", "Promoting", "Finalising")
ANALYSING: tuple[Phase, ...] = ("Progressing", "WaitingPromotion")


class Readiness(Enum):
    READY = "ready"
    WAITING = "waiting"
    STUCK = "stuck"
    """Past the progress deadline."""


@dataclass(frozen=True)
class Status:
    """The Canary's status. `canary_weight` is what Flagger last wrote; the traffic follows the route."""

    phase: Phase = ""
    failed_checks: int = 0
    canary_weight: int = 0
    last_applied_spec: str = ""
    last_promoted_spec: str = ""


class FlaggerCluster(Protocol):
    """The surroundings that the scheduler reads and changes."""

    def target_spec(self) -> str:
        """Hash of the target's live pod template."""

    def target_readiness(self) -> Readiness: ...

    def primary_readiness(self) -> Readiness: ...

    def canary_weight(self) -> int:
        """The canary's share in the route, of 100."""

    def set_route(self, canary_weight: int) -> None: ...

    def scale_target(self, replicas: int) -> None: ...

    def create_primary(self) -> None:
        """Make the primary Deployment from the target, unless there is one."""

    def promote(self) -> None:
        """Copy the target's live pod template over the primary's."""

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        """Call the webhook; return whether it passed."""

    def measure(self, metric: Metric) -> float | None:
        """Return the value of the metric's query; None for no values."""

    def record(self, text: str, phase: Phase, checksum: str, is_warning: bool) -> None:
        """An event, for people and for the event webhooks."""

    def publish(self, status: Status) -> None:
        """Write the Canary's status."""


class Scheduler:
    """One Canary's scheduler. Call `tick` once every `canary.interval_s`; the state is `status`."""

    def __init__(self, cluster: FlaggerCluster) -> None:
        self.cluster = cluster
        self.status = Status()

    def tick(self, canary: Canary) -> None:
        """Run one tick. Each guard may act and end it; the order is Flagger's."""
        self.canary = canary
        if canary.is_suspended:
            return
        guards: tuple[Callable[[], bool], ...] = (
            self._initialising,
            self._nothing_to_do,
            self._primary_not_ready,
            self._new_run,
            self._revision_changed,
            self._canary_not_ready,
            self._analysis_skipped,
            self._rollback_hook_fired,
            self._promoting,
            self._too_many_failed_checks,
            self._check_failed,
            self._traffic_increase_held,
        )
        if not any(ends_tick() for ends_tick in guards):
            self._advance()

    def _initialising(self) -> bool:
        if self.status.phase not in ("", "Initializing"):
            return False
        self._publish(replace(self.status, phase="Initializing"))
        self.cluster.create_primary()
        if not self.canary.skip_analysis and self._primary_not_ready():
            return True
        self.cluster.scale_target(0)
        self.cluster.set_route(0)
        self._sync("Initialized")
        self._say(f"Initialization done! {self.canary}")
        return False

    def _nothing_to_do(self) -> bool:
        if self.status.phase in RUNNING or self.status.phase == "Waiting":
            return False
        is_changed = self._has_target_changed()
        if self.status.phase == "Failed":
            # Written before anything acts on it: if this tick then ends early, the revision never starts.
            self._publish(replace(self.status, last_applied_spec=self.cluster.target_spec()))
        return not is_changed

    def _primary_not_ready(self) -> bool:
        readiness = self.cluster.primary_readiness()
        if self.canary.skip_analysis or readiness is Readiness.READY:
            return False
        self._warn(f"{self.canary.target}-primary.{self.canary.namespace} not ready: {readiness.value}")
        if readiness is Readiness.STUCK:
            if self.status.phase in ("Promoting", "Finalising"):
                # The primary broke while it took over: the canary is the only healthy copy, so it keeps the traffic.
                self.cluster.set_route(TOTAL_WEIGHT)
                self._warn(f"Promotion failed! Routing all traffic to canary {self.canary}", "Failed")
                self._sync("Failed", canary_weight=TOTAL_WEIGHT)
                self._refused("post-rollout", "Failed")
            else:
                self._roll_back()
        return True

    def _new_run(self) -> bool:
        if self.status.phase in RUNNING:
            return False
        if refused := self._refused("confirm-rollout", self.status.phase):
            if self.status.phase != "Waiting":
                self._enter("Waiting")
                self._warn(f"Halt {self.canary} advancement waiting for approval {refused.name}")
            return True
        self._say(f"New revision detected! Scaling up {self.canary.target}.{self.canary.namespace}", "Progressing")
        self.cluster.scale_target(1)
        self._sync("Progressing")
        return True

    def _revision_changed(self) -> bool:
        if self.status.phase not in ANALYSING or not self._has_target_changed():
            return False
        self.cluster.set_route(0)
        self._sync("Progressing")
        self._say(f"New revision detected! Restarting analysis for {self.canary.target}.{self.canary.namespace}")
        return True

    def _canary_not_ready(self) -> bool:
        readiness = self.cluster.target_readiness()
        if readiness is Readiness.READY:
            return False
        self._warn(f"canary deployment {self.canary.target}.{self.canary.namespace} not ready: {readiness.value}")
        if readiness is Readiness.STUCK:
            self._roll_back()
        return True

    def _analysis_skipped(self) -> bool:
        if not self.canary.skip_analysis:
            return False
        self.cluster.set_route(0)
        self._copy_template()
        self.cluster.scale_target(0)
        self._enter("Succeeded")
        self._say(f"Promotion completed! Canary analysis was skipped for {self.canary}")
        return True

    def _rollback_hook_fired(self) -> bool:
        if self.status.phase not in ANALYSING:
            return False
        hooks = self.canary.hooks_of("rollback")
        if not any(self.cluster.call_hook(hook, self.status.phase, self._checksum) for hook in hooks):
            return False
        self._warn(f"Rolling back {self.canary} manual webhook invoked")
        self._roll_back()
        return True

    def _promoting(self) -> bool:
        if self.status.phase == "Promoting":
            self._shift_back()
        elif self.status.phase == "Finalising":
            self.cluster.scale_target(0)
            self._enter("Succeeded")
            self._refused("post-rollout", "Succeeded")
            self._say(f"Promotion completed! Scaling down {self.canary.target}.{self.canary.namespace}")
        return self.status.phase not in ANALYSING

    def _too_many_failed_checks(self) -> bool:
        if self.status.failed_checks < self.canary.threshold:
            return False
        self._roll_back()
        return True

    def _check_failed(self) -> bool:
        is_start = self.cluster.canary_weight() == 0
        if is_start:
            self._say(f"Starting canary analysis for {self.canary.target}.{self.canary.namespace}")
        failed: Hook | Metric | None = self._refused("pre-rollout" if is_start else "rollout", "Progressing")
        if failed is None and not is_start:
            metrics = self.canary.metrics  # a missing value is out of range
            failed = next((metric for metric in metrics if not metric.accepts(self.cluster.measure(metric))), None)
        if failed is None:
            return False
        check = "pre-rollout" if is_start else "external"
        self._warn(f"Halt {self.canary} advancement {check} check {failed.name} failed")
        self._publish(replace(self.status, failed_checks=self.status.failed_checks + 1))
        return True

    def _traffic_increase_held(self) -> bool:
        if self.canary.next_step(self.cluster.canary_weight()) <= 0:
            return True
        if self.status.phase == "WaitingPromotion":
            return False
        if refused := self._refused("confirm-traffic-increase", "Progressing"):
            self._warn(f"Halt {self.canary} advancement waiting for traffic increase approval {refused.name}")
        return refused is not None

    def _advance(self) -> None:
        weight = self.cluster.canary_weight()
        if weight < self.canary.max_weight:
            weight = min(TOTAL_WEIGHT, weight + self.canary.next_step(weight))
            self.cluster.set_route(weight)
            self._publish(replace(self.status, canary_weight=weight))
            self._say(f"Advance {self.canary} canary weight {weight}")
        elif refused := self._refused("confirm-promotion", "Progressing"):
            if self.status.phase != "WaitingPromotion":
                self._enter("WaitingPromotion")
                self._warn(f"Halt {self.canary} advancement waiting for promotion approval {refused.name}")
        else:
            self._copy_template()
            self._enter("Promoting")

    def _shift_back(self) -> None:
        step = self.canary.step_weight_promotion or TOTAL_WEIGHT
        weight = max(0, self.cluster.canary_weight() - step)
        self.cluster.set_route(weight)
        if weight == 0:
            self._say("Routing all traffic to primary")
            self._enter("Finalising")
        else:
            self._publish(replace(self.status, canary_weight=weight))
            self._say(f"Advance {self.canary} primary weight {TOTAL_WEIGHT - weight}")

    def _roll_back(self) -> None:
        if self.status.failed_checks >= self.canary.threshold:
            self._warn(f"Rolling back {self.canary} failed checks threshold reached {self.status.failed_checks}")
        self.cluster.set_route(0)
        # The event reports Failed before the status does; listeners must not take it for the state.
        self._warn(f"Canary failed! Scaling down {self.canary}", "Failed")
        self.cluster.scale_target(0)
        self._sync("Failed")
        self._refused("post-rollout", "Failed")

    def _copy_template(self) -> None:
        # The live target, not the analysed one: what a sync brought in since this tick began is promoted with it.
        target = self.canary.target
        self._say(f"Copying {target}.{self.canary.namespace} template spec to {target}-primary.{self.canary.namespace}")
        self.cluster.promote()

    def _has_target_changed(self) -> bool:
        live = self.cluster.target_spec()
        if not self.status.last_applied_spec:
            return True
        return live not in (self.status.last_promoted_spec, self.status.last_applied_spec)

    def _refused(self, hook_type: str, phase: Phase) -> Hook | None:
        """Return the first webhook of this type that does not pass; later ones are not called."""
        hooks = self.canary.hooks_of(hook_type)
        return next((hook for hook in hooks if not self.cluster.call_hook(hook, phase, self._checksum)), None)

    def _sync(self, phase: Phase, canary_weight: int = 0) -> None:
        """Begin a phase: counters at zero, and the live template recorded as applied."""
        live = self.cluster.target_spec()
        promoted = live if phase == "Initialized" else self.status.last_promoted_spec
        self._publish(Status(phase, 0, canary_weight, live, promoted))

    def _enter(self, phase: Phase) -> None:
        """Move to a phase, keeping the counters; success makes the applied template the promoted one."""
        promoted = self.status.last_applied_spec if phase == "Succeeded" else self.status.last_promoted_spec
        weight = self.status.canary_weight if phase == "Waiting" else 0
        self._publish(replace(self.status, phase=phase, canary_weight=weight, last_promoted_spec=promoted))

    def _publish(self, status: Status) -> None:
        if status != self.status:
            self.status = status
            self.cluster.publish(status)

    @property
    def _checksum(self) -> str:
        return self.status.last_applied_spec

    def _say(self, text: str, phase: Phase | None = None) -> None:
        self.cluster.record(text, phase or self.status.phase, self._checksum, is_warning=False)

    def _warn(self, text: str, phase: Phase | None = None) -> None:
        self.cluster.record(text, phase or self.status.phase, self._checksum, is_warning=True)
