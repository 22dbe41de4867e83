"""A small model of Flagger's canary scheduler: one tick as a sequence of guards, with its surroundings injected.

A model for rehearsal, not a rollout engine. It follows Flagger v1.44, `pkg/controller/scheduler.go`: the order of
reads, writes, webhooks and events within a tick, failed checks that only add up, and the places where Flagger
surprises. `tests/rehearsal/replay.py` holds it against recordings of Flagger itself. Left out, and refused:
iterations, A/B matching, mirroring, session affinity, readiness thresholds.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum
from typing import Any, Protocol

from ratchet.rehearsal.canary_spec import TOTAL_WEIGHT, Canary, Hook, Metric
from ratchet.rehearsal.canary_status import ANALYSING, NEW, RUNNING, Phase, Status


class Readiness(Enum):
    READY = "ready"
    WAITING = "waiting"
    STUCK = "stuck"
    """Past the progress deadline."""


class ClusterError(Exception):
    """An object that is missing or not ready. Flagger tells it, and the tick ends there."""


class FlaggerCluster(Protocol):
    """The surroundings that the scheduler reads and changes. Every method may raise ClusterError."""

    def status(self) -> Status: ...

    def target_spec(self) -> str:
        """Hash of the target's live pod template."""

    def target_configs(self) -> Mapping[str, str]:
        """Checksums of the ConfigMaps and Secrets that the target's live pod template names."""

    def target_readiness(self) -> Readiness: ...

    def primary_readiness(self) -> Readiness: ...

    def weights(self) -> tuple[int, int]:
        """The primary's and the canary's share in the route, which the gateway has accepted."""

    def create_arm_services(self) -> None: ...

    def create_apex_service(self) -> None: ...

    def create_primary(self) -> None:
        """Make the primary Deployment from the target as it is now, unless there is one."""

    def reconcile_scaler(self, is_update: bool) -> None:
        """Make the primary's autoscaler if the Canary names one; with `is_update`, make it follow the target's."""

    def reconcile_route(self) -> None:
        """Make the route; write it whole, all traffic on the primary, where it differs in more than weights."""

    def set_weights(self, primary: int, canary: int) -> None: ...

    def scale_target_to_zero(self) -> None: ...

    def scale_target_up(self) -> None: ...

    def promote(self) -> None:
        """Copy the target's live pod template, configs and replicas over the primary's."""

    def publish(self, status: Status) -> None:
        """Write the Canary's status."""

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        """Call the webhook; return whether it passed."""

    def measure(self, metric: Metric) -> float | None:
        """Return the value of the metric's query; None for no values."""

    def record(self, text: str, phase: Phase, checksum: str, is_warning: bool) -> None:
        """An event, for people and for the event webhooks."""


def take_up(cluster: FlaggerCluster) -> None:
    """Give a Canary that has no status its first one, as Flagger does when it hears of it."""
    if not cluster.status().phase:
        cluster.publish(Status("Initializing"))


def tick(cluster: FlaggerCluster, canary: Canary) -> None:
    """Run one tick. Flagger does so every `canary.interval_s`, and keeps nothing from one tick to the next."""
    take_up(cluster)
    _Tick(cluster, canary).run()


class _Tick:
    """One tick. It goes by the status that it read at its beginning, whatever it writes meanwhile."""

    def __init__(self, cluster: FlaggerCluster, canary: Canary) -> None:
        self.cluster, self.canary, self.status = cluster, canary, cluster.status()
        self.primary_weight, self.weight = TOTAL_WEIGHT, 0

    def run(self) -> None:
        """Each guard may act and end the tick; the order is Flagger's."""
        if self.canary.is_suspended:
            self._say("skipping canary run as object is suspended")
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
        try:
            if not any(ends_tick() for ends_tick in guards):
                self._advance()
        except ClusterError as error:
            self._warn(str(error))

    def _initialising(self) -> bool:
        """Make what is missing. All of it is looked after in every tick; only a new Canary is initialised."""
        is_new, is_analysed = self.status.phase in NEW, not self.canary.skip_analysis
        self.cluster.create_arm_services()
        if is_new and is_analysed:
            self._say("all the metrics providers are available!")
        self.cluster.create_primary()
        if is_new and self._primary_not_ready():
            return True
        self.cluster.reconcile_scaler(is_update=False)
        self.cluster.create_apex_service()
        if is_new:
            self.cluster.scale_target_to_zero()
        self.cluster.reconcile_route()
        if is_new:
            self._sync("Initialized")
            self.status = self.cluster.status()
            self._say(f"Initialization done! {self.canary}")
        return False

    def _nothing_to_do(self) -> bool:
        if self.status.phase in RUNNING or self.status.phase == "Waiting":
            return False
        if self.status.phase == "Failed":
            # Written before anything acts on it: if this tick then ends early, the revision never starts.
            self.cluster.publish(replace(self.status, **self._live()))
        return not self._is_revision_new()

    def _primary_not_ready(self) -> bool:
        readiness = Readiness.READY if self.canary.skip_analysis else self.cluster.primary_readiness()
        if readiness is Readiness.READY:
            return False
        self._warn(f"{self.canary.target}-primary.{self.canary.namespace} not ready: {readiness.value}")
        if readiness is Readiness.STUCK and self.status.phase in ("Promoting", "Finalising"):
            # The primary broke while it took over: the canary is the only healthy copy, so it keeps the traffic.
            self._warn(f"Promotion of {self.canary.target}.{self.canary.namespace} failed, primary not ready")
            self.cluster.set_weights(0, TOTAL_WEIGHT)
            self._sync("Failed", TOTAL_WEIGHT)
            self._tell_end("Failed")
        elif readiness is Readiness.STUCK:
            self._roll_back()
        return True

    def _new_run(self) -> bool:
        self.primary_weight, self.weight = self.cluster.weights()
        if self.status.phase in RUNNING:
            return False
        self.status = self.cluster.status()
        if refused := self._refused("confirm-rollout", self.status.phase):
            if self.status.phase != "Waiting":
                self.cluster.publish(self.status.entering("Waiting"))
                self._warn(f"Halt {self.canary} advancement waiting for approval {refused.name}")
            return True
        self._say(f"New revision detected! Scaling up {self.canary.target}.{self.canary.namespace}", "Progressing")
        self.cluster.scale_target_up()
        self._sync("Progressing")
        return True

    def _revision_changed(self) -> bool:
        if self.status.phase not in ANALYSING or not self._is_revision_new():
            return False
        self._say(f"New revision detected! Restarting analysis for {self.canary.target}.{self.canary.namespace}")
        self.cluster.set_weights(TOTAL_WEIGHT, 0)
        self._sync("Progressing")
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
        self.cluster.set_weights(TOTAL_WEIGHT, 0)
        self._copy_template()
        self.cluster.reconcile_scaler(is_update=True)
        self.cluster.scale_target_to_zero()
        self.cluster.publish(self.status.entering("Succeeded"))
        self._tell_end("Succeeded", "Succeeded")
        self._say(f"Promotion completed! Canary analysis was skipped for {self.canary}", "Succeeded")
        return True

    def _rollback_hook_fired(self) -> bool:
        if self.status.phase not in ANALYSING:
            return False
        for hook in self.canary.hooks_of("rollback"):
            if self.cluster.call_hook(hook, self.status.phase, self.status.checksum):
                self._warn(f"Rollback check {hook.name} passed")
                self._warn(f"Rolling back {self.canary} manual webhook invoked")
                self._roll_back()
                return True
            self._say(f"Rollback hook {hook.name} not signaling a rollback")
        return False

    def _promoting(self) -> bool:
        if self.status.phase == "Promoting":
            self.cluster.reconcile_scaler(is_update=True)
            self._shift_back()
        elif self.status.phase == "Finalising":
            self.cluster.scale_target_to_zero()
            self.cluster.publish(self.status.entering("Succeeded"))
            self._tell_end("Succeeded", "Succeeded")
            target = f"{self.canary.target}.{self.canary.namespace}"
            self._say(f"Promotion completed! Scaling down {target}", "Succeeded")
        return self.status.phase not in ANALYSING

    def _too_many_failed_checks(self) -> bool:
        if self.status.failed_checks < self.canary.threshold:
            return False
        self._roll_back()
        return True

    def _check_failed(self) -> bool:
        # At weight 0 while promotion waits, iterations are -1: a route that was written anew starts without a question.
        is_start = self.weight == 0 and self.status.iterations == 0
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
        self.cluster.publish(replace(self.status, failed_checks=self.status.failed_checks + 1))
        return True

    def _traffic_increase_held(self) -> bool:
        if self.canary.next_step(self.weight) <= 0:
            return True
        if self.status.phase == "WaitingPromotion":
            return False
        if refused := self._refused("confirm-traffic-increase", "Progressing"):
            self._warn(f"Halt {self.canary} advancement waiting for traffic increase approval {refused.name}")
        return refused is not None

    def _advance(self) -> None:
        if self.weight < self.canary.max_weight:
            step = self.canary.next_step(self.weight)
            weight = min(TOTAL_WEIGHT, self.weight + step)
            self.cluster.set_weights(max(0, self.primary_weight - step), weight)
            self.cluster.publish(replace(self.status, canary_weight=weight))
            self._say(f"Advance {self.canary} canary weight {weight}")
        elif refused := self._refused("confirm-promotion", "Progressing"):
            self._wait_for_promotion(refused)
        else:
            self._copy_template()
            self.cluster.publish(self.status.entering("Promoting"))

    def _wait_for_promotion(self, refused: Hook) -> None:
        if self.status.phase == "WaitingPromotion":
            self.cluster.publish(replace(self.status, iterations=-1))
            return
        self.cluster.publish(self.status.entering("WaitingPromotion"))
        self._warn(f"Halt {self.canary} advancement waiting for promotion approval {refused.name}")

    def _shift_back(self) -> None:
        step = self.canary.step_weight_promotion
        if not step:
            self._say("Routing all traffic to primary")
            self.cluster.set_weights(TOTAL_WEIGHT, 0)
            self.cluster.publish(self.status.entering("Finalising"))
        elif self.weight > 0:  # else it stays in this phase for good
            primary, weight = min(TOTAL_WEIGHT, self.primary_weight + step), max(0, self.weight - step)
            self.cluster.set_weights(primary, weight)
            self._say(f"Advance {self.canary} primary weight {primary}")
            is_done = primary == TOTAL_WEIGHT
            status = self.status.entering("Finalising") if is_done else replace(self.status, canary_weight=weight)
            self.cluster.publish(status)

    def _roll_back(self) -> None:
        if self.status.failed_checks >= self.canary.threshold:
            self._warn(f"Rolling back {self.canary} failed checks threshold reached {self.status.failed_checks}")
        self.cluster.set_weights(TOTAL_WEIGHT, 0)
        # The event reports Failed before the status does; listeners must not take it for the state.
        self._warn(f"Canary failed! Scaling down {self.canary}", "Failed")
        self.cluster.scale_target_to_zero()
        self._sync("Failed")
        self._tell_end("Failed")

    def _tell_end(self, end: Phase, phase: Phase | None = None) -> None:
        if refused := self._refused("post-rollout", end, phase):
            self._warn(f"Post-rollout hook {refused.name} failed", phase)

    def _copy_template(self) -> None:
        # The live target, not the analysed one: what a sync brought in since this tick began is promoted with it.
        target = self.canary.target
        self._say(f"Copying {target}.{self.canary.namespace} template spec to {target}-primary.{self.canary.namespace}")
        self.cluster.promote()

    def _is_revision_new(self) -> bool:
        status, live = self.status, self.cluster.target_spec()
        if not status.last_applied_spec:
            return True
        if live not in (status.last_promoted_spec, status.last_applied_spec):
            return True
        # Configs have no promoted state: going back to the promoted ones is a new revision, too.
        return dict(self.cluster.target_configs()) != dict(status.tracked_configs or {})

    def _refused(self, kind: str, phase: Phase, told: Phase | None = None) -> Hook | None:
        """Return the first webhook of this type that does not pass; later ones are not called."""
        for hook in self.canary.hooks_of(kind):
            if not self.cluster.call_hook(hook, phase, self.status.checksum):
                return hook
            if kind != "rollout":
                self._say(f"{kind.capitalize()} check {hook.name} passed", told)
        return None

    def _sync(self, phase: Phase, canary_weight: int = 0) -> None:
        """Begin a phase: counters at zero, and the live revision recorded as applied."""
        live = self._live()
        promoted = live["last_applied_spec"] if phase == "Initialized" else self.status.last_promoted_spec
        self.cluster.publish(Status(phase, 0, canary_weight, last_promoted_spec=promoted, **live))

    def _live(self) -> dict[str, Any]:
        return {"last_applied_spec": self.cluster.target_spec(), "tracked_configs": self.cluster.target_configs()}

    def _say(self, text: str, phase: Phase | None = None) -> None:
        self.cluster.record(text, phase or self.status.phase, self.status.checksum, is_warning=False)

    def _warn(self, text: str, phase: Phase | None = None) -> None:
        self.cluster.record(text, phase or self.status.phase, self.status.checksum, is_warning=True)
