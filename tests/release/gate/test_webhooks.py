"""Each hook's answer, and the promise that matters: yes only on positive grounds."""

from dataclasses import replace

import pytest

from ratchet.release.gate.evidence import Evidence, Tally
from ratchet.release.gate.webhooks import ALWAYS, HOOKS, GateView, Limits, answer
from ratchet.release.ledger import LedgerRecord
from support.release_edges import NEW, OLD

LIMITS = Limits(min_votes=4, max_minutes=60)


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
        "is_target_up": True,
        "request": request(),
        "quarantined": frozenset(),
        "is_aborted": False,
        "evidence": evidence(),
        "num_steps": 1,
        "minutes": 1.0,
    }
    return GateView(**(fields | changes))


def aborted() -> LedgerRecord:
    return request(baseline=OLD.model_copy(update={"digest": "a" * 64}))


SAME = view(target=OLD.digest, request=None, evidence=None)
BACK_AS_CANDIDATE = view(primary=NEW.digest, evidence=evidence())


@pytest.mark.parametrize(
    ("hook", "seen", "is_yes"),
    [
        ("confirm-rollout", view(), True),
        ("confirm-rollout", view(request=None), False),
        ("confirm-rollout", view(quarantined=frozenset({NEW.digest})), False),
        ("confirm-rollout", view(target="c" * 64), False),  # one at a time
        ("confirm-rollout", view(request=request(verdict="insufficient")), False),
        ("confirm-rollout", view(request=request(verdict="fail", forced=True)), True),
        ("confirm-rollout", view(target="a" * 64, request=aborted(), is_aborted=True), True),  # goes back
        # The same adapter on both arms: a change of image, of the environment, of a Secret.
        ("confirm-rollout", SAME, True),
        ("rollback", SAME, False),
        ("confirm-traffic-increase", SAME, True),
        ("confirm-promotion", SAME, True),
        ("confirm-promotion", replace(SAME, is_target_up=False), False),
        ("confirm-rollout", replace(SAME, request=request()), True),  # a release that has yet to be synced
        ("rollback", replace(SAME, request=request(), evidence=None), False),
        # A primary that was deleted comes back as the candidate, which nobody has judged.
        ("confirm-rollout", BACK_AS_CANDIDATE, False),
        ("rollback", BACK_AS_CANDIDATE, True),
        ("confirm-traffic-increase", BACK_AS_CANDIDATE, False),
        ("confirm-promotion", BACK_AS_CANDIDATE, False),
        ("confirm-promotion", replace(BACK_AS_CANDIDATE, evidence=evidence("pass")), True),
        ("pre-rollout", view(request=None), True),  # of Canaries from before: a no would be a failed check
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
        ("confirm-traffic-increase", view(weight=0, evidence=None, request=None), False),
        ("confirm-traffic-increase", view(weight=0, quarantined=frozenset({NEW.digest})), False),
        ("confirm-traffic-increase", view(is_target_up=False), False),  # 0 of 0 replicas are ready to Flagger
        ("confirm-traffic-increase", view(evidence=None), False),
        ("confirm-traffic-increase", view(), True),
        ("confirm-traffic-increase", view(evidence=evidence(canary_votes=3)), False),
        ("confirm-traffic-increase", view(evidence=evidence(canary_votes=7), num_steps=2), False),  # 4 for each step
        ("confirm-traffic-increase", view(evidence=evidence(split=99.0)), False),
        ("confirm-traffic-increase", view(evidence=evidence("fail")), False),
        ("confirm-promotion", view(), False),
        ("confirm-promotion", view(evidence=evidence("pass")), True),
        ("confirm-promotion", view(evidence=evidence("pass"), is_target_up=False), False),
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
    empty = view(request=None, evidence=None)
    yes = {hook for hook in HOOKS if answer(hook, empty, LIMITS).is_yes}
    assert yes == set(ALWAYS)
