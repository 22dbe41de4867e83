"""The reconciler's table, row by row, and what holds over every combination of states."""

import itertools
from dataclasses import replace

import pytest

from ratchet.release.reconciler.decide import IN_FLIGHT, Observed, decide

OLD, NEW, ELSE = "base", "b" * 64, "c" * 64
RUNNING = Observed(
    requested=NEW,
    git=NEW,
    target=NEW,
    primary=OLD,
    phase="Progressing",
    canary_weight=20,
    has_started=True,
    is_settled=False,
)
SUCCEEDED = replace(RUNNING, phase="Succeeded", primary=NEW, canary_weight=0, is_settled=True)
FAILED = replace(RUNNING, phase="Failed", canary_weight=0)


@pytest.mark.parametrize(
    ("seen", "does"),
    [
        (RUNNING, "wait"),
        (SUCCEEDED, "promote"),
        (FAILED, "roll_back"),
        (replace(RUNNING, requested=None), "nothing"),
        (replace(FAILED, requested=None), "nothing"),
        (replace(RUNNING, target=OLD), "wait"),  # Argo CD has not synced
        (replace(SUCCEEDED, is_settled=False), "wait"),
        (replace(SUCCEEDED, phase="Finalising"), "wait"),
        # Left over from the release before: Flagger has not started on this one.
        (replace(FAILED, has_started=False), "wait"),
        (replace(SUCCEEDED, primary=OLD, has_started=False), "wait"),
        # Killed in the middle of a rollback: Git is put back, then synced, the rest is still to do.
        (replace(FAILED, git=OLD), "wait"),
        (replace(FAILED, git=OLD, target=OLD), "roll_back"),
        # The canary is the only healthy copy.
        (replace(FAILED, canary_weight=100), "page"),
        (replace(FAILED, canary_weight=100, requested=None), "page"),
        # Reverted in the middle of the run: old against old, and a success that means nothing.
        (replace(SUCCEEDED, git=OLD, target=OLD, primary=OLD), "refuse"),
        # Synced between the last check and the promotion: promoted without having been analysed.
        (replace(SUCCEEDED, git=ELSE, target=ELSE, primary=ELSE), "refuse"),
        (replace(FAILED, git=ELSE, target=ELSE), "refuse"),
        (replace(FAILED, primary=NEW), "refuse"),
        # Primary runs it already: nothing for Flagger to do.
        (replace(SUCCEEDED, phase="Initialized", has_started=False), "promote"),
        # Aborted where no rollback hook is asked.
        (replace(RUNNING, phase="Waiting", has_started=False, is_aborted=True), "roll_back"),
        (replace(RUNNING, is_aborted=True), "wait"),
        # Withdrawn: somebody put another adapter into Git. While a run goes on, the gate's rollback ends it first.
        (replace(RUNNING, git=OLD, target=OLD, is_withdrawn=True), "wait"),
        (replace(FAILED, git=OLD, target=OLD, is_withdrawn=True), "roll_back"),
        (replace(SUCCEEDED, git=OLD, target=OLD, primary=OLD, has_started=False, is_withdrawn=True), "refuse"),
        (replace(RUNNING, phase="Waiting", git=ELSE, target=ELSE, is_withdrawn=True), "refuse"),
        (replace(RUNNING, phase="Waiting", git=ELSE, target=OLD, is_withdrawn=True), "wait"),  # not synced yet
        # An operator goes back: naming it in Git is ours.
        (replace(SUCCEEDED, git=OLD, target=OLD, primary=OLD, has_started=False, restores=True), "restore"),
        (
            replace(SUCCEEDED, git=OLD, target=OLD, primary=OLD, has_started=False, restores=True, is_aborted=True),
            "roll_back",
        ),
        (replace(SUCCEEDED, restores=True), "promote"),
    ],
)
def test_each_row(seen: Observed, does: str) -> None:
    assert decide(seen).kind == does


def every_state():
    digests, flags = (OLD, NEW, ELSE), (False, True)
    phases = (*IN_FLIGHT, "Initialized", "Succeeded", "Failed", "Terminating")
    for git, target, primary, phase, weight, started, settled, aborted in itertools.product(
        digests, digests, digests, phases, (0, 100), flags, flags, flags
    ):
        yield Observed(
            requested=NEW,
            git=git,
            target=target,
            primary=primary,
            phase=phase,
            canary_weight=weight,
            has_started=started,
            is_settled=settled,
            is_aborted=aborted,
        )


def test_nothing_is_promoted_that_primary_does_not_run() -> None:
    promoted = [seen for seen in every_state() if decide(seen).kind == "promote"]
    assert promoted
    assert all(seen.git == seen.target == seen.primary == NEW for seen in promoted)
    assert all(seen.phase in ("Succeeded", "Initialized") for seen in promoted)


def test_nothing_is_rolled_back_that_serves() -> None:
    rolled_back = [seen for seen in every_state() if decide(seen).kind == "roll_back"]
    assert rolled_back
    assert all(seen.primary != NEW for seen in rolled_back)
    assert not any(seen.phase == "Failed" and seen.canary_weight == 100 for seen in rolled_back)
    assert all(seen.phase == "Failed" or seen.is_aborted for seen in rolled_back)
