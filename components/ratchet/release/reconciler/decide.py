"""Decide what the reconciler does: one pure function over the table of observable states.

Level-triggered: it reads states, never events, so it may be killed, restarted or called twice without harm.
"""

from dataclasses import dataclass
from typing import Literal

from ratchet.adapter_ref import AdapterDigest

ActionKind = Literal["nothing", "wait", "restore", "promote", "roll_back", "refuse", "page"]
FAILED_YET_SERVING = "the canary failed, and yet primary runs the adapter: a person has to look"
IN_FLIGHT = ("Initializing", "Waiting", "Progressing", "WaitingPromotion", "Promoting", "Finalising")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Digests by place, and the Canary's status. Places are read in the order ledger, canary, pods, Git."""

    requested: AdapterDigest | None
    """Digest of the open request in the ledger; None when no release is under way."""
    git: AdapterDigest
    target: AdapterDigest
    primary: AdapterDigest
    phase: str
    canary_weight: int
    """From the Canary's status: percent of traffic on the target when the phase was reached."""
    has_started: bool
    """Flagger has taken up a revision since the request: its lastAppliedSpec changed, or the gate saw it run.

    The first alone is not enough: once Failed, Flagger records the spec that Git is put back to as applied.
    """
    is_settled: bool
    """lastAppliedSpec and lastPromotedSpec agree."""
    is_aborted: bool = False
    is_withdrawn: bool = False
    """Git named the requested adapter once and names another now: somebody put it back."""
    restores: bool = False
    """The request is an operator's rollback, whose adapter the reconciler itself names in Git."""


@dataclass(frozen=True)
class Action:
    kind: ActionKind
    why: str


def decide(observed: Observed) -> Action:
    """Return the one action that these states call for. The rows are in order: the first that fits decides."""
    requested, target, primary = observed.requested, observed.target, observed.primary
    if observed.phase == "Failed" and observed.canary_weight == 100:
        # Flagger found primary broken while promoting: the canary is the only healthy copy, and reverting would
        # replace it.
        return Action("page", "promotion failed with all traffic on the canary; Git must not be reverted by a machine")
    if requested is None:
        return Action("nothing", "no release is under way")
    if observed.restores and not observed.is_aborted and observed.git != requested:
        return Action("restore", f"an operator goes back to {_short(requested)}")
    if observed.git != target:
        return Action("wait", f"Git names {_short(observed.git)}, the cluster still {_short(target)}: waiting for sync")
    if target == primary == requested and (observed.is_settled or not observed.has_started):
        return _when_serving(observed)
    if observed.is_aborted and not observed.has_started and primary != requested:
        return Action("roll_back", "aborted before the canary started")
    return _by_phase(observed, requested)


def _when_serving(observed: Observed) -> Action:
    """Every place names the requested adapter already."""
    match observed.phase:
        case "Succeeded" | "Initialized":
            why = f"the canary is {observed.phase} and every place names {_short(observed.requested)}"
            return Action("promote", why)
        case "Failed" if observed.has_started:
            return Action("refuse", FAILED_YET_SERVING)
        case phase:
            return Action("wait", f"the canary is {phase}")


def _by_phase(observed: Observed, requested: AdapterDigest) -> Action:
    """Git and target agree, and the release is neither complete nor aborted before its canary."""
    withdrawn = f"Git names {_short(observed.git)} now: somebody withdrew the release before its canary ran"
    primary = observed.primary
    match observed.phase:
        case "Waiting" if observed.is_withdrawn:  # Flagger waits for our yes, which only the requested adapter gets
            return Action("refuse", withdrawn)
        case phase if phase in IN_FLIGHT:
            return Action("wait", f"the canary is {phase}")
        case _ if not observed.has_started and observed.is_withdrawn:
            return Action("refuse", withdrawn)
        case _ if not observed.has_started:
            return Action("wait", "Flagger has not taken up the new revision")
        case "Failed" if primary == requested:
            return Action("refuse", FAILED_YET_SERVING)
        case "Failed" if observed.target in (requested, primary):  # the latter: Git is put back already
            return Action("roll_back", "the canary failed")
        case "Failed":
            return Action("refuse", f"the canary failed for {_short(observed.target)}, which no release requested")
        case "Succeeded" if primary != requested:
            # A commit in the middle of the run: Flagger goes on, old against old or new unanalysed, and succeeds.
            why = f"the canary succeeded, but primary runs {_short(primary)}, not what was requested"
            return Action("refuse", why)
        case "Succeeded":
            return Action("wait", "the canary succeeded; its status is not settled yet")
        case phase:
            return Action("wait", f"the canary is {phase}")


def _short(digest: str | None) -> str:
    return (digest or "nothing")[:12]
