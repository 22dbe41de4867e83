"""Decide what the reconciler does: one pure function over the table of observable states.

Level-triggered: it reads states, never events, so it may be killed, restarted or called twice without harm.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from ratchet.adapter_ref import AdapterDigest

ActionKind = Literal["nothing", "wait", "skip_analysis", "name_again", "promote", "roll_back", "refuse", "page"]
RUNNING = ("Progressing", "WaitingPromotion", "Promoting", "Finalising")
IN_FLIGHT = ("Initializing", "Waiting", *RUNNING)
AWAY = "`ratchet abort` goes back to what served"
FAILED_YET_SERVING = f"the canary failed, and yet primary runs the adapter: {AWAY}"


class Revision(NamedTuple):
    """What a place names: an adapter by its digest, and the nonce that makes another revision of the same adapter."""

    adapter: AdapterDigest
    nonce: str = ""


@dataclass(frozen=True, kw_only=True)
class Observed:
    """Revisions by place, and the Canary's status. Places are read in the order ledger, canary, pods, Git."""

    requested: AdapterDigest | None
    """Digest of the open request in the ledger; None when no release is under way."""
    baseline: AdapterDigest
    """Digest that served at the request."""
    git: Revision
    target: Revision
    primary: Revision
    nonce: str
    """The nonce of the next revision that we would name: another one for each revision that Flagger has recorded."""
    phase: str
    canary_weight: int
    """From the Canary's status: percent of traffic on the target when the phase was reached."""
    weight: int
    """Percent of traffic on the target by the route, now."""
    has_started: bool
    """The phase was entered after the request.

    The hash that Flagger records as applied proves nothing: once Failed, it records whatever the target holds.
    """
    has_applied: bool
    """Flagger has recorded another revision as applied since the request."""
    took_requests: bool
    """The gate has seen this release's canary take requests: nothing passes that did not."""
    is_settled: bool
    """lastAppliedSpec and lastPromotedSpec agree."""
    is_primary_up: bool
    skips_in_git: bool
    """Git tells Flagger to promote without a canary."""
    skips: bool
    """The Canary says so."""
    is_aborted: bool = False
    is_withdrawn: bool = False
    """Git named the requested adapter once and names another now: somebody put it back."""
    restores: bool = False
    """The request is an operator's rollback, whose adapter the reconciler itself names in Git."""

    @property
    def is_promotion_failed(self) -> bool:
        """Flagger found primary broken while promoting: the canary is the only healthy copy and has all traffic."""
        return self.phase == "Failed" and self.canary_weight == 100

    @property
    def goes_back(self) -> bool:
        """An operator goes back without a canary: to a version, or by aborting once primary runs the candidate."""
        is_late = self.primary.adapter == self.requested != self.baseline and self.phase not in RUNNING
        return self.restores or (self.is_aborted and (is_late or self.is_promotion_failed or self.skips_in_git))


@dataclass(frozen=True)
class Action:
    kind: ActionKind
    why: str


def decide(seen: Observed) -> Action:
    """Return the one action that these states call for. The rows are in order: the first that fits decides."""
    if seen.requested is None:
        return _page(seen) if seen.is_promotion_failed else Action("nothing", "no release is under way")
    if seen.goes_back:
        return _go_back(seen, seen.requested if seen.restores else seen.baseline)
    if seen.is_promotion_failed:
        return _after_failed_promotion(seen)
    if seen.is_aborted and seen.phase not in RUNNING and seen.primary.adapter != seen.requested:
        return Action("roll_back", "an operator aborted it")
    if seen.git != seen.target:
        return _wait_for_sync(seen)
    if seen.target.adapter == seen.primary.adapter == seen.requested:
        if seen.is_settled and (seen.took_requests or seen.requested == seen.baseline):
            return _when_serving(seen)
        if seen.phase in ("Initialized", "Succeeded", "Waiting") and not seen.took_requests:
            return Action("page", f"primary was made anew from {_short(seen.primary)}, which has not passed: {AWAY}")
    return _by_phase(seen, seen.requested)


def _go_back(seen: Observed, wanted: AdapterDigest) -> Action:
    """Bring `wanted` into all places without a canary: `skipAnalysis` first, the adapter once the Canary has it.

    In one commit Argo CD would change the Deployment first. With a broken primary Flagger fails that revision, and
    takes it for no change once `skipAnalysis` arrives.
    """
    is_named = seen.git.adapter == seen.target.adapter == seen.primary.adapter == wanted and seen.git == seen.target
    if is_named and seen.phase in ("Succeeded", "Initialized") and seen.is_settled:
        return _after_going_back(seen)
    if seen.restores and seen.is_aborted and seen.phase not in RUNNING and seen.primary.adapter != wanted:
        return Action("roll_back", "an operator aborted going back")
    if seen.phase in RUNNING and seen.target.adapter != wanted:  # it would be promoted as it is
        return Action("wait", f"the canary of {_short(seen.target)} is {seen.phase}: it has to end first")
    if not seen.skips_in_git:
        return Action("skip_analysis", f"going back to {_short(wanted)}: first without analysis")
    if not seen.skips:
        return Action("wait", "waiting for the Canary to skip its analysis")
    if seen.git.adapter != wanted:
        return Action("name_again", f"an operator goes back to {_short(wanted)}")
    if seen.git != seen.target:
        return _wait_for_sync(seen)
    if seen.phase == "Failed" and seen.git.nonce != seen.nonce:
        return Action("name_again", f"going back to {_short(wanted)} failed: once more")
    return Action("wait", f"going back to {_short(wanted)}: the canary is {seen.phase}")


def _after_going_back(seen: Observed) -> Action:
    if seen.is_primary_up:
        return Action("promote" if seen.restores else "roll_back", f"every place names {_short(seen.primary)}")
    if seen.restores and seen.is_aborted:
        return Action("refuse", f"aborted: primary names {_short(seen.primary)}, and its pods are not up")
    return Action("wait", f"primary names {_short(seen.primary)}, and its pods are not up yet")


def _after_failed_promotion(seen: Observed) -> Action:
    """Only a healthy primary makes any change safe: another revision of the same adapter then moves traffic to it."""
    if not (seen.git.adapter == seen.target.adapter == seen.primary.adapter == seen.requested and seen.is_primary_up):
        return _page(seen)
    if seen.git != seen.target:
        return _wait_for_sync(seen)
    if seen.git.nonce != seen.nonce:
        return Action("name_again", "promotion failed, and primary is mended: once more, with the same adapter")
    return Action("wait", "Flagger has not taken up the new revision")


def _page(seen: Observed) -> Action:
    why = (
        f"promotion failed: the route sends {seen.weight} percent to the canary, the only healthy copy; Git must not "
        "be reverted by a machine. Mend primary, or `ratchet abort`, or `ratchet rollback --to VERSION`"
    )
    return Action("page", why)


def _when_serving(seen: Observed) -> Action:
    """Every place names the requested adapter already."""
    match seen.phase:
        case "Succeeded" | "Initialized" | "Waiting" if not seen.is_primary_up:
            return Action("wait", f"primary names {_short(seen.primary)}, and its pods are not up yet")
        case "Succeeded" | "Initialized":
            return Action("promote", f"the canary is {seen.phase} and every place names {_short(seen.primary)}")
        case "Waiting" if seen.is_settled:  # for another revision of the same adapter
            return Action("promote", f"every place names {_short(seen.primary)}")
        case "Failed" if seen.has_started:
            return Action("page", FAILED_YET_SERVING)
        case phase:
            return Action("wait", f"the canary is {phase}")


def _by_phase(seen: Observed, requested: AdapterDigest) -> Action:
    """Git and target agree, and the release is neither complete nor aborted before its canary."""
    withdrawn = f"Git names {_short(seen.git)} now: somebody withdrew the release before its canary ran"
    match seen.phase:
        case "Waiting" if seen.is_withdrawn:  # Flagger waits for our yes, which only the requested adapter gets
            return Action("refuse", withdrawn)
        case phase if phase in IN_FLIGHT:
            return Action("wait", f"the canary is {phase}")
        case _ if not seen.has_started:
            return Action("refuse", withdrawn) if seen.is_withdrawn else _before_the_start(seen, requested)
        case "Failed" if seen.primary.adapter == requested:
            return Action("page", FAILED_YET_SERVING)
        case "Failed" if seen.target.adapter in (requested, seen.primary.adapter):  # the latter: put back already
            return Action("roll_back", "the canary failed")
        case "Failed":
            return Action("refuse", f"the canary failed for {_short(seen.target)}, which no release requested")
        case "Succeeded" if seen.primary.adapter != requested:
            # A commit in the middle of the run: Flagger goes on, old against old or new unanalysed, and succeeds.
            why = f"the canary succeeded, but primary runs {_short(seen.primary)}, not what was requested"
            return Action("refuse", why)
        case "Succeeded":
            return Action("wait", "the canary succeeded; its status is not settled yet")
        case phase:
            return Action("wait", f"the canary is {phase}")


def _before_the_start(seen: Observed, requested: AdapterDigest) -> Action:
    """Once Failed, Flagger records a revision before it does anything else; a tick that ends early swallows it."""
    is_recorded = seen.phase == "Failed" and seen.has_applied and seen.target.adapter == requested
    if is_recorded and seen.git.nonce != seen.nonce:
        return Action("name_again", "Flagger may have recorded the revision without starting it: once more")
    return Action("wait", "Flagger has not taken up the new revision")


def _wait_for_sync(seen: Observed) -> Action:
    return Action("wait", f"Git names {_named(seen.git)}, the cluster still {_named(seen.target)}: waiting for sync")


def _short(place: Revision | AdapterDigest) -> str:
    return (place.adapter if isinstance(place, Revision) else place)[:12]


def _named(revision: Revision) -> str:
    return f"{revision.adapter[:12]} ({revision.nonce})" if revision.nonce else revision.adapter[:12]
