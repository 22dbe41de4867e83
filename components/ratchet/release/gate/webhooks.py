"""Answer Flagger's webhooks: yes (200) or no (403) and a reason, from one view taken beforehand."""

from collections.abc import Callable
from dataclasses import dataclass

from ratchet.adapter_ref import AdapterDigest
from ratchet.release.gate.evidence import Evidence
from ratchet.release.ledger import LedgerRecord

JUDGED_PHASES = ("Progressing", "WaitingPromotion")
ALWAYS = ("pre-rollout", "post-rollout", "event")
"""Answered yes, which moves nothing. Canaries of earlier charts ask pre-rollout; a no would be a failed check."""


@dataclass(frozen=True, kw_only=True)
class GateView:
    """Everything that an answer depends on, taken at one moment."""

    phase: str
    target: AdapterDigest
    """Digest in the canary's pod template."""
    primary: AdapterDigest
    weight: int
    is_target_up: bool
    """The canary has pods, and all are available."""
    request: LedgerRecord | None
    """The release under way."""
    quarantined: frozenset[AdapterDigest]
    is_aborted: bool
    evidence: Evidence | None
    """None before the canary of this request has been seen to start."""
    num_steps: int
    """Traffic steps of this run so far."""
    minutes: float
    """Since the canary was first seen to run."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    min_votes: int
    max_minutes: float


@dataclass(frozen=True)
class HookAnswer:
    is_yes: bool
    why: str


def answer(hook: str, view: GateView, limits: Limits) -> HookAnswer:
    """Answer one of `HOOKS`. Raises KeyError for any other."""
    return HOOKS[hook](view, limits)


def _confirm_rollout(view: GateView, limits: Limits) -> HookAnswer:
    """Answer whether this revision may run at all. Asked again before its first traffic, on a newer look."""
    request = view.request
    if view.target == view.primary:
        return _same_adapter(view)
    if view.target in view.quarantined:
        return HookAnswer(False, f"adapter {view.target[:12]} was rolled back and is quarantined")
    if request is None:
        return HookAnswer(False, f"no open release request for adapter {view.target[:12]} in the ledger")
    if view.is_aborted and request.baseline is not None and view.target == request.baseline.digest:
        return HookAnswer(True, "an operator goes back to what served before")
    if request.adapter.digest != view.target:
        return HookAnswer(False, f"the release of {request.adapter} is under way: one at a time")
    if request.verdict != "pass" and not request.forced:
        return HookAnswer(False, f"the offline verdict is {request.verdict or 'missing'}, and it was not forced")
    return HookAnswer(True, "forced past the offline gate" if request.forced else "the offline verdict is pass")


def _same_adapter(view: GateView) -> HookAnswer:
    """Answer for a change of image, environment or secrets: there are no two adapters to compare; metrics decide."""
    request = view.request
    if request is not None and request.adapter.digest != view.target and view.evidence is not None:
        # Flagger does not notice a revert during a run: it would go on, old against old, and succeed.
        return HookAnswer(False, f"the canary runs {view.target[:12]}, not the requested {request.adapter}")
    if request is not None and request.adapter.digest == view.primary and not _was_passed(view):
        # A primary that was deleted comes back as the candidate; so does one that an operator goes back to.
        is_known = request.restores or (request.baseline is not None and request.baseline.digest == view.primary)
        if not is_known:
            return HookAnswer(False, f"primary runs {view.primary[:12]} before it has passed")
    return HookAnswer(True, "the same adapter on both arms: metrics alone decide")


def _was_passed(view: GateView) -> bool:
    return view.evidence is not None and view.evidence.decision == "pass"


def _rollback(view: GateView, limits: Limits) -> HookAnswer:
    """Answer yes, which rolls back, only on positive grounds, never because of the gate's own failures."""
    request = view.request
    if request is None:
        return HookAnswer(False, "no release is under way")
    if view.is_aborted:
        return HookAnswer(True, "an operator asked for it")
    if view.phase in JUDGED_PHASES and view.target == view.primary:
        same = _same_adapter(view)
        return HookAnswer(not same.is_yes, same.why)
    if view.phase in JUDGED_PHASES and view.target != request.adapter.digest:
        return HookAnswer(True, f"the canary runs {view.target[:12]}, not the requested {request.adapter}")
    if view.evidence is None:
        return HookAnswer(False, "the run has not begun")
    if view.evidence.decision == "fail":
        return HookAnswer(True, view.evidence.why)
    if view.minutes > limits.max_minutes:
        return HookAnswer(True, f"inconclusive after {view.minutes:.0f} minutes: {view.evidence.why}")
    return HookAnswer(False, view.evidence.why)


def _confirm_traffic_increase(view: GateView, limits: Limits) -> HookAnswer:
    if not view.is_target_up:  # Flagger takes a canary without replicas for a ready one
        return HookAnswer(False, "the canary has no pods that are available")
    if view.target == view.primary or view.weight == 0:
        return _confirm_rollout(view, limits)
    if view.evidence is None:
        return HookAnswer(False, "the gate knows nothing of this run")
    needed, has = limits.min_votes * view.num_steps, view.evidence.votes["canary"].n
    if has < needed:
        return HookAnswer(False, f"{has} canary votes of {needed} needed at {view.weight} percent")
    if view.evidence.decision == "fail" or view.evidence.has_srm_alarm:
        return HookAnswer(False, view.evidence.why)
    return HookAnswer(True, f"{has} canary votes, {needed} needed")


def _confirm_promotion(view: GateView, limits: Limits) -> HookAnswer:
    if not view.is_target_up:
        return HookAnswer(False, "the canary has no pods that are available; promotion would copy its replicas")
    if view.is_aborted:
        return HookAnswer(False, "an operator asked for a rollback")
    if view.target == view.primary:
        return _same_adapter(view)
    if view.request is None or view.evidence is None:
        return HookAnswer(False, "the gate knows nothing of this run")
    if view.target != view.request.adapter.digest:
        return HookAnswer(False, f"the canary runs {view.target[:12]}, not the requested {view.request.adapter}")
    return HookAnswer(_was_passed(view), view.evidence.why)


def _always(view: GateView, limits: Limits) -> HookAnswer:
    return HookAnswer(True, "noted")


HOOKS: dict[str, Callable[[GateView, Limits], HookAnswer]] = {
    "confirm-rollout": _confirm_rollout,
    "pre-rollout": _always,
    "rollback": _rollback,
    "confirm-traffic-increase": _confirm_traffic_increase,
    "confirm-promotion": _confirm_promotion,
    "post-rollout": _always,
    "event": _always,
}
