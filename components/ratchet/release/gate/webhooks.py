"""Answer Flagger's webhooks: yes (200) or no (403) and a reason, from one view taken beforehand."""

from collections.abc import Callable
from dataclasses import dataclass

from ratchet.adapter_ref import AdapterDigest
from ratchet.release.gate.evidence import Evidence
from ratchet.release.ledger import LedgerRecord

JUDGED_PHASES = ("Progressing", "WaitingPromotion")
ALWAYS = ("post-rollout", "event")


@dataclass(frozen=True, kw_only=True)
class GateView:
    """Everything that an answer depends on, taken at one moment."""

    phase: str
    target: AdapterDigest
    """Digest in the canary's pod template."""
    primary: AdapterDigest
    weight: int
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
    if view.target == view.primary:
        return HookAnswer(False, "no new adapter in the pod template, as far as the gate has seen")
    if view.target in view.quarantined:
        return HookAnswer(False, f"adapter {view.target[:12]} was rolled back and is quarantined")
    if view.request is not None and view.request.adapter.digest != view.target:
        return HookAnswer(False, f"the release of {view.request.adapter} is under way: one at a time")
    return HookAnswer(True, "not quarantined")


def _pre_rollout(view: GateView, limits: Limits) -> HookAnswer:
    request = view.request
    if request is None or request.adapter.digest != view.target:
        return HookAnswer(False, f"no open release request for adapter {view.target[:12]} in the ledger")
    if request.verdict != "pass" and not request.forced:
        return HookAnswer(False, f"the offline verdict is {request.verdict or 'missing'}, and it was not forced")
    return HookAnswer(True, "forced past the offline gate" if request.forced else "the offline verdict is pass")


def _rollback(view: GateView, limits: Limits) -> HookAnswer:
    """Answer yes, which rolls back, only on positive grounds, never because of the gate's own failures."""
    if view.request is None:
        return HookAnswer(False, "no release is under way")
    if view.is_aborted:
        return HookAnswer(True, "an operator asked for it")
    if view.phase in JUDGED_PHASES and view.target != view.request.adapter.digest:
        # Flagger does not notice a revert during a run: it would go on, old against old, and succeed.
        return HookAnswer(True, f"the canary runs {view.target[:12]}, not the requested {view.request.adapter}")
    if view.evidence is None:
        return HookAnswer(False, "the run has not begun")
    if view.evidence.decision == "fail":
        return HookAnswer(True, view.evidence.why)
    if view.minutes > limits.max_minutes:
        return HookAnswer(True, f"inconclusive after {view.minutes:.0f} minutes: {view.evidence.why}")
    return HookAnswer(False, view.evidence.why)


def _confirm_traffic_increase(view: GateView, limits: Limits) -> HookAnswer:
    if view.weight == 0:  # a refusal here would repeat pre-rollout every tick
        return HookAnswer(True, "the canary has no traffic yet")
    if view.evidence is None:
        return HookAnswer(False, "the gate knows nothing of this run")
    needed, has = limits.min_votes * view.num_steps, view.evidence.votes["canary"].n
    if has < needed:
        return HookAnswer(False, f"{has} canary votes of {needed} needed at {view.weight} percent")
    if view.evidence.decision == "fail" or view.evidence.has_srm_alarm:
        return HookAnswer(False, view.evidence.why)
    return HookAnswer(True, f"{has} canary votes, {needed} needed")


def _confirm_promotion(view: GateView, limits: Limits) -> HookAnswer:
    if view.request is None or view.evidence is None:
        return HookAnswer(False, "the gate knows nothing of this run")
    if view.target != view.request.adapter.digest:
        return HookAnswer(False, f"the canary runs {view.target[:12]}, not the requested {view.request.adapter}")
    if view.is_aborted:
        return HookAnswer(False, "an operator asked for a rollback")
    return HookAnswer(view.evidence.decision == "pass", view.evidence.why)


def _always(view: GateView, limits: Limits) -> HookAnswer:
    return HookAnswer(True, "noted")


HOOKS: dict[str, Callable[[GateView, Limits], HookAnswer]] = {
    "confirm-rollout": _confirm_rollout,
    "pre-rollout": _pre_rollout,
    "rollback": _rollback,
    "confirm-traffic-increase": _confirm_traffic_increase,
    "confirm-promotion": _confirm_promotion,
    "post-rollout": _always,
    "event": _always,
}
