"""What the reconciler does about what it sees: one pure function over the table of observable states.

Level-triggered: it reads states, never events, so it may be killed, restarted or called twice without harm.
"""

from dataclasses import dataclass
from typing import Literal

from ratchet.adapter_ref import AdapterDigest

ActionKind = Literal["nothing", "wait", "restore", "promote", "roll_back", "refuse", "page"]
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
    """Of the Canary's status: percent of traffic that was on the target when the phase was reached."""
    has_started: bool
    """Flagger has taken up a revision since the request: its lastAppliedSpec is another, or the gate saw it run.

    The first alone is not enough: once Failed, Flagger takes down as applied whatever Git is put back to.
    """
    is_settled: bool
    """lastAppliedSpec and lastPromotedSpec agree."""
    is_aborted: bool = False
    is_withdrawn: bool = False
    """Git named the request once, and names another now: somebody put it back."""
    restores: bool = False
    """The request is an operator's way back: Git may not name it yet, and naming it is ours."""


@dataclass(frozen=True)
class Action:
    kind: ActionKind
    why: str


def decide(seen: Observed) -> Action:
    """The one action that these states call for."""
    if seen.phase == "Failed" and seen.canary_weight == 100:
        # Flagger found primary broken while promoting: the canary is the only healthy copy, and reverting would
        # replace it.
        return Action("page", "promotion failed with all traffic on the canary; Git must not be reverted by a machine")
    if seen.requested is None:
        return Action("nothing", "no release is under way")
    if seen.restores and not seen.is_aborted and seen.git != seen.requested:
        return Action("restore", f"an operator goes back to {_short(seen.requested)}")
    if seen.git != seen.target:
        return Action(
            "wait", f"Git names {_short(seen.git)}, the cluster still {_short(seen.target)}: waiting for sync"
        )
    if seen.target == seen.primary == seen.requested and (seen.is_settled or not seen.has_started):
        return _once_serving(seen)
    if seen.is_aborted and not seen.has_started and seen.primary != seen.requested:
        return Action("roll_back", "aborted before the canary started")
    if seen.phase in IN_FLIGHT:
        return _in_flight(seen)
    return _once_ended(seen)


def _in_flight(seen: Observed) -> Action:
    if seen.phase == "Waiting" and seen.is_withdrawn:  # for our yes, which the gate gives to what is requested alone
        return _withdrawn(seen)
    return Action("wait", f"the canary is {seen.phase}")


def _withdrawn(seen: Observed) -> Action:
    return Action("refuse", f"Git names {_short(seen.git)} now: somebody withdrew the release before its canary ran")


def _once_ended(seen: Observed) -> Action:
    if not seen.has_started and seen.is_withdrawn:
        return _withdrawn(seen)
    if not seen.has_started:
        return Action("wait", "Flagger has not taken up the new revision")
    if seen.phase == "Failed":
        return _once_failed(seen)
    if seen.phase == "Succeeded":
        return _once_succeeded(seen)
    return Action("wait", f"the canary is {seen.phase}")


def _once_serving(seen: Observed) -> Action:
    if seen.phase in ("Succeeded", "Initialized"):
        return Action("promote", f"the canary is {seen.phase} and every place names {_short(seen.requested)}")
    if seen.phase == "Failed" and seen.has_started:
        return Action("refuse", "the canary failed, and yet primary runs the adapter: a person has to look")
    return Action("wait", f"the canary is {seen.phase}")


def _once_failed(seen: Observed) -> Action:
    if seen.primary == seen.requested:
        return Action("refuse", "the canary failed, and yet primary runs the adapter: a person has to look")
    if seen.target in (seen.requested, seen.primary):  # the latter: Git is put back already
        return Action("roll_back", "the canary failed")
    return Action("refuse", f"the canary failed for {_short(seen.target)}, which no release requested")


def _once_succeeded(seen: Observed) -> Action:
    if seen.primary != seen.requested:
        # A commit in the middle of the run: Flagger goes on, old against old or new unanalysed, and succeeds.
        return Action(
            "refuse", f"the canary succeeded, but primary runs {_short(seen.primary)}, not what was requested"
        )
    return Action("wait", "the canary succeeded; its status is not settled yet")


def _short(digest: str | None) -> str:
    return (digest or "nothing")[:12]
