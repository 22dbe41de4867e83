"""The reconciler's table, row by row, and what holds over every combination of states."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest

from ratchet.release.reconciler.decide import IN_FLIGHT, Observed, Revision, decide
from ratchet.release.reconciler.decide import RUNNING as IN_RUN

OLD, NEW, ELSE = "base", "b" * 64, "c" * 64
R_OLD, R_NEW, R_ELSE = Revision(OLD), Revision(NEW), Revision(ELSE)
RUNNING = Observed(
    requested=NEW,
    baseline=OLD,
    git=R_NEW,
    target=R_NEW,
    primary=R_OLD,
    nonce="1-spec",
    phase="Progressing",
    canary_weight=20,
    weight=20,
    has_started=True,
    has_applied=True,
    took_requests=True,
    is_settled=False,
    is_primary_up=True,
    skips_in_git=False,
    skips=False,
)
SUCCEEDED = replace(RUNNING, phase="Succeeded", primary=R_NEW, canary_weight=0, is_settled=True)
FAILED = replace(RUNNING, phase="Failed", canary_weight=0)
NOT_STARTED = replace(FAILED, has_started=False, has_applied=False)
BROKEN = replace(FAILED, canary_weight=100, primary=R_NEW, is_primary_up=False)
BACK = replace(SUCCEEDED, git=R_OLD, target=R_OLD, primary=R_OLD, has_started=False, restores=True)
SKIPPING = replace(BACK, skips_in_git=True, skips=True)
RESTORED = replace(SKIPPING, git=Revision(NEW, "1-a"), target=Revision(NEW, "1-a"), primary=Revision(NEW, "1-a"))


@pytest.mark.parametrize(
    ("seen", "does"),
    [
        (RUNNING, "wait"),
        (SUCCEEDED, "promote"),
        (FAILED, "roll_back"),
        (replace(RUNNING, requested=None), "nothing"),
        (replace(FAILED, requested=None), "nothing"),
        (replace(RUNNING, target=R_OLD), "wait"),  # Argo CD has not synced
        (replace(SUCCEEDED, is_settled=False), "wait"),
        (replace(SUCCEEDED, phase="Finalising"), "wait"),
        # Left over from the release before: Flagger has not started on this one.
        (NOT_STARTED, "wait"),
        # Recorded as applied before anybody was asked, and perhaps never started: under a new nonce, once.
        (replace(NOT_STARTED, has_applied=True), "name_again"),
        (replace(NOT_STARTED, has_applied=True, git=Revision(NEW, "1-spec"), target=Revision(NEW, "1-spec")), "wait"),
        (replace(SUCCEEDED, primary=R_OLD, has_started=False), "wait"),
        # Killed in the middle of a rollback: Git is put back, then synced, the rest is still to do.
        (replace(FAILED, git=R_OLD), "wait"),
        (replace(FAILED, git=R_OLD, target=R_OLD), "roll_back"),
        # The canary is the only healthy copy.
        (BROKEN, "page"),
        (replace(BROKEN, requested=None), "page"),
        (replace(BROKEN, git=R_OLD), "page"),  # whoever did that: nothing may move before primary is well
        (replace(BROKEN, is_primary_up=True), "name_again"),
        (replace(BROKEN, is_primary_up=True, git=Revision(NEW, "1-spec")), "wait"),
        (replace(BROKEN, is_aborted=True), "skip_analysis"),
        (replace(BROKEN, is_aborted=True, skips_in_git=True), "wait"),
        (replace(BROKEN, is_aborted=True, skips_in_git=True, skips=True), "name_again"),
        # Reverted in the middle of the run: old against old, and a success that means nothing.
        (replace(SUCCEEDED, git=R_OLD, target=R_OLD, primary=R_OLD), "refuse"),
        # Synced between the last check and the promotion: promoted without having been analysed.
        (replace(SUCCEEDED, git=R_ELSE, target=R_ELSE, primary=R_ELSE), "refuse"),
        (replace(FAILED, git=R_ELSE, target=R_ELSE), "refuse"),
        # Primary was deleted during the run, or the canary broke while primary took over.
        (replace(FAILED, primary=R_NEW), "page"),
        (replace(FAILED, primary=R_NEW, is_aborted=True), "skip_analysis"),
        # Promoted without an analysis: its pods may not be up yet, and the old ones still serve.
        (replace(SUCCEEDED, is_primary_up=False), "wait"),
        # Another image came with the promotion, and waits; the release is complete.
        (replace(SUCCEEDED, phase="Waiting"), "promote"),
        # Primary was deleted, and is made anew from the candidate, which has not passed.
        (replace(SUCCEEDED, phase="Initialized", has_started=False, took_requests=False), "page"),
        (
            replace(SUCCEEDED, phase="Initialized", has_started=False, took_requests=False, is_aborted=True),
            "skip_analysis",
        ),
        (replace(SUCCEEDED, took_requests=False), "page"),  # a success of something else, and primary made anew
        # What is requested served already.
        (replace(SUCCEEDED, phase="Initialized", has_started=False, took_requests=False, baseline=NEW), "promote"),
        # Aborted where no rollback hook is asked.
        (replace(RUNNING, phase="Waiting", has_started=False, is_aborted=True), "roll_back"),
        (replace(RUNNING, is_aborted=True), "wait"),
        # Withdrawn: somebody put another adapter into Git. While a run goes on, the gate's rollback ends it first.
        (replace(RUNNING, git=R_OLD, target=R_OLD, is_withdrawn=True), "wait"),
        (replace(FAILED, git=R_OLD, target=R_OLD, is_withdrawn=True), "roll_back"),
        (replace(SUCCEEDED, git=R_OLD, target=R_OLD, primary=R_OLD, has_started=False, is_withdrawn=True), "refuse"),
        (replace(RUNNING, phase="Waiting", git=R_ELSE, target=R_ELSE, is_withdrawn=True), "refuse"),
        (replace(RUNNING, phase="Waiting", git=R_ELSE, target=R_OLD, is_withdrawn=True), "wait"),  # not synced yet
        # An operator goes back: naming it in Git is ours, once the Canary skips the analysis.
        (BACK, "skip_analysis"),
        (replace(BACK, skips_in_git=True), "wait"),
        (SKIPPING, "name_again"),
        (replace(SKIPPING, git=R_NEW), "wait"),
        (replace(SKIPPING, phase="Progressing", target=R_ELSE), "wait"),  # it would be promoted as it is
        (replace(BACK, is_aborted=True), "roll_back"),
        (RESTORED, "promote"),
        (replace(RESTORED, is_primary_up=False), "wait"),
        (replace(RESTORED, is_primary_up=False, is_aborted=True), "refuse"),
        (replace(RESTORED, primary=R_OLD, phase="Failed"), "name_again"),  # never a quarantine
        (replace(RESTORED, primary=R_OLD, phase="Failed", nonce="1-a"), "wait"),
    ],
)
def test_each_row(seen: Observed, does: str) -> None:
    assert decide(seen).kind == does


def every_state() -> Iterator[Observed]:
    places, flags = (R_OLD, R_NEW, R_ELSE), (False, True)
    phases = (*IN_FLIGHT, "Initialized", "Succeeded", "Failed", "Terminating")
    for git, target, primary, phase, weight, started, settled, aborted, restores, skips in itertools.product(
        places, places, places, phases, (0, 100), flags, flags, flags, flags, flags
    ):
        yield replace(
            RUNNING,
            git=git,
            target=target,
            primary=primary,
            phase=phase,
            canary_weight=weight,
            has_started=started,
            has_applied=started,
            took_requests=started,
            is_settled=settled,
            is_aborted=aborted,
            restores=restores,
            skips_in_git=skips,
            skips=skips,
        )


def test_nothing_is_promoted_that_primary_does_not_run() -> None:
    promoted = [seen for seen in every_state() if decide(seen).kind == "promote"]
    assert promoted
    assert all(seen.git == seen.target == seen.primary == R_NEW for seen in promoted)
    assert all(seen.phase in ("Succeeded", "Initialized", "Waiting") for seen in promoted)


def test_nothing_is_rolled_back_that_serves() -> None:
    rolled_back = [seen for seen in every_state() if decide(seen).kind == "roll_back"]
    assert rolled_back
    assert all(seen.primary != R_NEW for seen in rolled_back)
    assert not any(seen.is_promotion_failed and not seen.goes_back for seen in rolled_back)
    assert all(seen.phase == "Failed" or seen.is_aborted for seen in rolled_back)


def test_no_analysis_is_skipped_while_another_canary_runs() -> None:
    skipped = [seen for seen in every_state() if decide(seen).kind == "skip_analysis"]
    assert skipped
    assert all(seen.goes_back for seen in skipped)
    wanted = {True: R_NEW, False: R_OLD}
    assert not any(seen.phase in IN_RUN and seen.target != wanted[seen.restores] for seen in skipped)


def test_an_abort_is_never_waited_on_where_flagger_has_nothing_to_do() -> None:
    """Outside of a run only a sync, or pods on their way, can be waited for; and a page is not an end."""
    aborted = [seen for seen in every_state() if seen.is_aborted and seen.phase not in IN_FLIGHT]
    stuck = [seen for seen in aborted if decide(seen).kind == "page"]
    assert aborted
    assert not stuck
