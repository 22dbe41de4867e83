"""Each hook's answer, and the promise that matters: yes only on positive grounds."""

import pytest

from ratchet.release.gate.evidence import Evidence, Tally
from ratchet.release.gate.webhooks import HOOKS, GateView, Limits, answer
from ratchet.release.ledger import LedgerRecord
from support.release_edges import NEW, OLD

LIMITS = Limits(min_votes=4, max_minutes=60)
ALWAYS = {"post-rollout", "event"}


def evidence(decision="undecided", canary_votes: int = 20, split: float = 0.0) -> Evidence:
    votes = {"primary": Tally(20, 16), "canary": Tally(canary_votes, 1)}
    return Evidence(
        votes=votes,
        harm=0.0,
        non_inferiority=0.0,
        srm_log_e=split,
        vote_srm_log_e=0.0,
        bound=3.0,
        decision=decision,
        why="because",
    )


def request(**changes) -> LedgerRecord:
    fields = {"seq": 1, "event": "requested", "at": 0.0, "who": "t", "adapter": NEW, "baseline": OLD, "verdict": "pass"}
    return LedgerRecord.model_validate(fields | changes)


def view(**changes) -> GateView:
    fields = {
        "phase": "Progressing",
        "target": NEW.digest,
        "primary": OLD.digest,
        "weight": 20,
        "request": request(),
        "quarantined": frozenset(),
        "is_aborted": False,
        "evidence": evidence(),
        "num_steps": 1,
        "minutes": 1.0,
    }
    return GateView(**(fields | changes))


@pytest.mark.parametrize(
    ("hook", "seen", "is_yes"),
    [
        ("confirm-rollout", view(), True),
        ("confirm-rollout", view(request=None), True),
        ("confirm-rollout", view(quarantined=frozenset({NEW.digest})), False),
        ("confirm-rollout", view(target=OLD.digest), False),  # our look is older than the change it asks about
        ("confirm-rollout", view(target="c" * 64), False),  # one at a time
        ("pre-rollout", view(), True),
        ("pre-rollout", view(request=None), False),
        ("pre-rollout", view(target="c" * 64), False),
        ("pre-rollout", view(request=request(verdict="insufficient")), False),
        ("pre-rollout", view(request=request(verdict="fail", forced=True)), True),
        ("rollback", view(), False),
        ("rollback", view(evidence=evidence("fail")), True),
        ("rollback", view(evidence=evidence("pass")), False),
        ("rollback", view(evidence=evidence(split=99.0)), False),  # hold, do not roll back
        ("rollback", view(minutes=61.0), True),
        ("rollback", view(target=OLD.digest), True),  # reverted in the middle of the run
        ("rollback", view(target=OLD.digest, phase="Initialized"), False),  # our look is older than the run
        ("rollback", view(is_aborted=True, evidence=None), True),
        ("rollback", view(evidence=None, minutes=61.0), False),
        ("rollback", view(request=None, evidence=evidence("fail"), is_aborted=True), False),
        ("confirm-traffic-increase", view(weight=0, evidence=None), True),
        ("confirm-traffic-increase", view(evidence=None), False),
        ("confirm-traffic-increase", view(), True),
        ("confirm-traffic-increase", view(evidence=evidence(canary_votes=3)), False),
        ("confirm-traffic-increase", view(evidence=evidence(canary_votes=7), num_steps=2), False),  # 4 for each step
        ("confirm-traffic-increase", view(evidence=evidence(split=99.0)), False),
        ("confirm-traffic-increase", view(evidence=evidence("fail")), False),
        ("confirm-promotion", view(), False),
        ("confirm-promotion", view(evidence=evidence("pass")), True),
        ("confirm-promotion", view(evidence=evidence("fail")), False),
        ("confirm-promotion", view(evidence=evidence("pass"), target=OLD.digest), False),  # reverted meanwhile
        ("confirm-promotion", view(evidence=evidence("pass"), is_aborted=True), False),
        ("confirm-promotion", view(evidence=None), False),
        ("post-rollout", view(), True),
        ("event", view(request=None), True),
    ],
)
def test_each_answer(hook: str, seen: GateView, is_yes: bool) -> None:
    given = answer(hook, seen, LIMITS)
    assert given.is_yes == is_yes
    assert given.why


def test_without_a_release_nothing_moves() -> None:
    empty = view(request=None, evidence=None, target=OLD.digest)
    yes = {hook for hook in HOOKS if answer(hook, empty, LIMITS).is_yes}
    assert yes == ALWAYS
