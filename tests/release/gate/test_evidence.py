"""Votes become evidence the same way whatever their order, only those that may count do, and evidence is only added."""

import random
from dataclasses import replace

import pytest

from ratchet.adapter_ref import AdapterDigest
from ratchet.events import Feedback
from ratchet.release.gate.design import CanaryDesign
from ratchet.release.gate.evidence import Tally
from ratchet.release.gate.votes import EXCLUDED, ServedAnswer, Vote
from support.gate_run import NEW, OLD, GateRun, design, evidence_of

OTHER = AdapterDigest("c" * 64)
START = 110.0


def run_of(*spans: tuple[float, float, int], attempt: int = 1, horizon_s: float = 1e6) -> CanaryDesign:
    return design(*spans, attempt=attempt, harm_horizon_s=horizon_s, promotion_horizon_s=horizon_s)


RUN = run_of((100.0, START, 0), (START, 100_000.0, 50))


def served(number: int, digest: AdapterDigest, at: float, tenant: str = "default") -> ServedAnswer:
    return ServedAnswer(interaction_id=f"i{number:05}", digest=digest, served_at=at, tenant=tenant)


def vote(number: int, is_up: bool | None, at: float, subject: str | None = None, on: int | None = None) -> Vote:
    return Vote(
        feedback_id=f"f{number}",
        interaction_id=f"i{number if on is None else on:05}",
        subject_id=subject or f"s{number}",
        is_up=is_up,
        created_at=at,
    )


def traffic(num: int, liked_old: float, liked_new: float, seed: int = 1, share: float = 0.5, first: int = 0):
    """Each person asks once and votes once, one a second from the start."""
    rng = random.Random(seed)
    answers, votes = [], []
    for number in range(first, first + num):
        is_new = rng.random() < share
        answers.append(served(number, NEW if is_new else OLD, START + 1 + number))
        votes.append(vote(number, rng.random() < (liked_new if is_new else liked_old), START + 1.5 + number))
    return answers, votes


def test_a_worse_candidate_fails() -> None:
    evidence = evidence_of(RUN, *traffic(400, 0.9, 0.4))
    assert evidence.decision == "fail"
    assert evidence.harm >= evidence.bound > evidence.non_inferiority
    assert "less" in evidence.why


def test_a_better_candidate_passes() -> None:
    evidence = evidence_of(RUN, *traffic(400, 0.4, 0.85))
    assert evidence.decision == "pass"
    assert evidence.non_inferiority >= evidence.bound > evidence.harm


def test_few_votes_decide_nothing() -> None:
    assert evidence_of(RUN, *traffic(6, 0.9, 0.3)).decision == "undecided"


def test_a_second_attempt_needs_more() -> None:
    second = run_of((100.0, 10_000.0, 50), attempt=2)
    assert evidence_of(second, [], []).bound > evidence_of(RUN, [], []).bound


@pytest.mark.parametrize("seed", range(3))
def test_order_and_repetition_of_events_change_nothing(seed: int) -> None:
    answers, votes = traffic(200, 0.8, 0.6)
    mixed = (answers + answers[:10], votes + votes[:20])
    for events in mixed:
        random.Random(seed).shuffle(events)
    assert evidence_of(RUN, *mixed) == evidence_of(RUN, answers, votes)


@pytest.mark.parametrize("seed", range(5))
def test_looking_often_reads_what_looking_once_reads(seed: int) -> None:
    """Events land in any order within the horizon; the looks come when they like."""
    rng = random.Random(seed)
    run = run_of((100.0, 300.0, 20), (301.0, 100_000.0, 50), horizon_s=50.0)
    answers, votes = traffic(400, 0.8, 0.6, seed=seed)
    late = [replace(each, created_at=each.created_at + rng.choice([0, 10, 49, 60])) for each in votes]
    events = [(a.served_at, a) for a in answers] + [(v.created_at, v) for v in late]
    often = GateRun(run)
    now = START
    while now < 1000:
        now += rng.choice([1, 5, 40])
        ready = [event for at, event in events if at <= now]
        events = [(at, event) for at, event in events if at > now]
        split = [[e for e in ready if isinstance(e, kind)] for kind in (ServedAnswer, Vote)]
        rng.shuffle(split[0])
        evidence = often.look(split[0], split[1], now)
    once = GateRun(run)
    assert once.look(answers, late, now) == evidence
    assert once.strata == often.strata
    assert len(once.strata["harm"]) > 8


def test_a_gate_that_starts_again_goes_on_from_what_was_read() -> None:
    answers, votes = traffic(300, 0.8, 0.5)
    whole = GateRun(RUN)
    whole.look(answers[:150], votes[:150])
    read = {test: list(strata) for test, strata in whole.strata.items()}
    again = GateRun(RUN, read)
    assert again.look(answers, votes) == whole.look(answers[150:], votes[150:])
    assert again.strata == whole.strata


def test_history_of_a_part_is_the_start_of_the_whole() -> None:
    answers, votes = traffic(240, 0.8, 0.5)
    part, whole = evidence_of(RUN, answers, votes[:120]), evidence_of(RUN, answers, votes)
    assert part.history == whole.history[: len(part.history)]
    assert 0 < len(part.history) < len(whole.history)


def test_only_the_first_vote_of_a_person_on_this_run_counts() -> None:
    run = run_of((100.0, 200.0, 50), (300.0, 900.0, 50))
    answers = [
        served(1, NEW, 120.0),
        served(2, OLD, 121.0),
        served(3, OTHER, 122.0),  # neither arm
        served(4, NEW, 90.0),  # before the run
        ServedAnswer(interaction_id="i00007", digest=NEW, served_at=301.0, latency_s=50.0),  # over a step
    ]
    votes = [
        vote(1, True, 130.0, subject="a"),
        vote(2, False, 131.0, subject="a"),  # repeats
        vote(3, False, 132.0, subject="b"),
        vote(4, False, 133.0, subject="c"),
        vote(5, False, 134.0, subject="d", on=99),
        vote(6, False, 135.0, subject="e", on=2),
        vote(7, False, 302.0, subject="f"),
        vote(8, None, 136.0, subject="g", on=2),
    ]
    evidence = evidence_of(run, answers, votes)
    assert evidence.votes == {"primary": Tally(1, 0), "canary": Tally(1, 1)}
    expected = {
        "repeat_vote": 1, "other_adapter": 1, "served_outside_run": 1, "interaction_unknown": 1, "weight_changing": 1,
        "neutral": 1,
    }  # fmt: skip
    assert evidence.excluded == dict.fromkeys(EXCLUDED, 0) | expected
    assert sum(tally.n for tally in evidence.votes.values()) + sum(evidence.excluded.values()) == len(votes)


def changed(*steps: tuple[bool | None, dict[str, object]]) -> list[Vote]:
    """One person's votes on one answer, a second apart."""
    return [
        replace(vote(n, is_up, 130.0 + n, subject="a", on=1), **more)  # type: ignore[arg-type]
        for n, (is_up, more) in enumerate(steps)
    ]


@pytest.mark.parametrize(
    ("votes", "tally"),
    [
        (changed((True, {}), (False, {})), Tally(1, 0)),
        (changed((True, {}), (False, {}), (True, {})), Tally(1, 1)),
        (changed((False, {}), (True, {"is_retracted": True})), Tally(0, 0)),
        (changed((False, {}), (None, {"supersedes_id": "f0", "is_retracted": True, "signal": "x"})), Tally(0, 0)),
        (changed((False, {}), (True, {"supersedes_id": "f0"})), Tally(1, 1)),
        (changed((False, {"signal": "rating "}), (None, {"signal": "rating "})), Tally(0, 0)),  # 2 stars, then 3
        (changed((True, {"feedback_id": "same"}), (False, {"feedback_id": "same"})), Tally(1, 1)),  # an id counts once
    ],
)
def test_a_vote_that_was_changed_or_taken_back_is_what_it_is_in_the_datasets(votes: list[Vote], tally: Tally) -> None:
    evidence = evidence_of(RUN, [served(1, NEW, 120.0)], votes)
    assert evidence.votes["canary"] == tally


def test_votes_that_come_after_the_horizon_are_in_the_tallies_alone() -> None:
    run = run_of((START, 100_000.0, 50), horizon_s=60.0)
    answers, votes = traffic(300, 0.9, 0.3)
    late = [replace(each, created_at=each.created_at + 120) for each in votes]
    evidence = evidence_of(run, answers, late)
    assert (evidence.read["harm"], evidence.decision) == (0, "undecided")
    assert sum(tally.n for tally in evidence.votes.values()) == 300


def test_a_stratum_is_not_read_before_its_answers_have_had_their_time() -> None:
    run = run_of((START, 100_000.0, 50), horizon_s=60.0)
    answers, votes = traffic(64, 0.8, 0.8)
    gate = GateRun(run)
    assert gate.look(answers, votes, now=START + 32 + 30).read["harm"] == 0
    assert gate.look([], [], now=START + 32 + 60 + 3).read["harm"] == 32
    assert gate.look([], [], now=START + 64 + 60 + 3).read["harm"] == 64


def test_harm_may_be_read_sooner_than_promotion() -> None:
    run = replace(run_of((START, 100_000.0, 50)), harm_horizon_s=10.0, promotion_horizon_s=1000.0)
    gate = GateRun(run)
    evidence = gate.look(*traffic(128, 0.9, 0.3), now=START + 300)
    assert (evidence.read["harm"], evidence.read["non_inferiority"]) == (128, 0)
    assert evidence.decision == "fail"


def test_answers_that_land_late_rewrite_no_decision() -> None:
    """Answers of 40 early votes land after the decision: they are told, and the decision stays."""
    answers, votes = traffic(400, 0.9, 0.4)
    kept_back = [each for n, each in enumerate(answers) if n < 100 and n % 5 == 0]
    gate = GateRun(replace(RUN, harm_horizon_s=60.0, promotion_horizon_s=60.0))
    before = gate.look([each for each in answers if each not in kept_back], votes, now=START + 600)
    assert before.decision == "fail"
    flattering = [replace(each, is_up=True) for each in votes[:100:5]]
    after = gate.look(
        kept_back, [replace(each, feedback_id=f"x{each.feedback_id}") for each in flattering], START + 601
    )
    assert (after.decision, after.harm, after.history) == (before.decision, before.harm, before.history)
    assert sum(tally.n for tally in after.votes.values()) > sum(tally.n for tally in before.votes.values())


@pytest.mark.parametrize(
    ("kind", "value", "source", "expected"),
    [
        ("thumb", 1, "human", True),
        ("thumb", -1, "human", False),
        ("thumb", 0, "human", None),
        ("rating", 4, "human", True),
        ("rating", 3, "human", None),
        ("rating", 2, "human", False),
        ("thumb", 1, "model", None),
        ("copy", 1, "human", None),
        ("correction", "better so", "human", None),
        ("thumb", "1", "human", None),
    ],
)
def test_what_is_a_vote(kind, value, source, expected) -> None:
    event = Feedback(
        feedback_id="f", interaction_id="i", subject_id="s", kind=kind, value=value, source=source, created_at=1.0
    )
    found = Vote.of(event)
    assert (found.is_up if found else None) is expected


def test_traffic_that_arrives_as_sent_raises_no_alarm() -> None:
    run = run_of((100.0, 110.0, 0), (110.0, 600.0, 20), (610.0, 2_000.0, 50))
    early, _ = traffic(480, 0.8, 0.8, share=0.2)
    late = [replace(answer, served_at=answer.served_at + 510) for answer in traffic(900, 0.8, 0.8, seed=2)[0]]
    late = [replace(answer, interaction_id=f"late-{answer.interaction_id}") for answer in late]
    evidence = evidence_of(run, early + late, [])
    assert evidence.srm_log_e < 0
    assert not evidence.has_srm_alarm


def test_traffic_that_does_not_arrive_as_sent_is_never_passed() -> None:
    answers, votes = traffic(400, 0.4, 0.85, share=0.5)
    run = run_of((110.0, 10_000.0, 20))
    evidence = evidence_of(run, answers, votes)
    assert evidence.non_inferiority >= evidence.bound
    assert evidence.has_srm_alarm
    assert evidence.decision == "undecided"
    assert "as the route sends them" in evidence.why


def test_an_answer_that_straddles_a_step_is_not_held_against_the_split() -> None:
    run = run_of((100.0, 199.0, 0), (200.0, 300.0, 50))
    slow = ServedAnswer(interaction_id="i", digest=OLD, served_at=205.0, latency_s=10.0)
    assert evidence_of(run, [slow], []).srm_log_e == 0


def test_a_later_turn_counts_only_if_its_arm_was_chosen_under_the_same_weight() -> None:
    run = run_of((100.0, 200.0, 20), (201.0, 900.0, 50))
    kept = [
        replace(served(1, NEW, 300.0), assigned_at=250.0),
        replace(served(2, NEW, 300.0), assigned_at=150.0),  # under another weight
        replace(served(3, NEW, 300.0), assigned_at=50.0),  # before the run
    ]
    evidence = evidence_of(run, kept, [vote(number, True, 301.0) for number in (1, 2, 3)])
    assert evidence.votes["canary"] == Tally(1, 1)
    assert (evidence.excluded["weight_changing"], evidence.excluded["served_outside_run"]) == (1, 1)
    assert evidence.srm_log_e == 0  # the route chose none of these answers


def test_voters_who_speak_up_on_one_arm_alone_hold_the_promotion() -> None:
    answers, votes = traffic(400, 0.5, 0.9)
    kept = [vote for vote, answer in zip(votes, answers, strict=True) if answer.digest == NEW or vote.is_up]
    evidence = evidence_of(RUN, answers, kept)
    assert evidence.srm_log_e < evidence.vote_srm_log_e
    assert evidence.has_srm_alarm
    assert evidence.decision != "pass"


def hostile(num: int, at: float, up_on: AdapterDigest, every_s: float = 0.1, seed: int = 3):
    """A tenant's made-up people, who vote one arm up and the other down, from `at` on."""
    rng = random.Random(seed)
    answers, votes = [], []
    for number in range(90_000, 90_000 + num):
        arm = rng.choice([OLD, NEW])
        answers.append(served(number, arm, at + (number - 90_000) * every_s, "evil"))
        votes.append(vote(number, arm == up_on, at + 1000.0))
    return answers, votes


def public(num: int, liked_old: float = 0.8, liked_new: float = 0.8, tenants: int = 7):
    answers, votes = traffic(num, liked_old, liked_new)
    return [replace(answer, tenant=f"tenant-{n % tenants}") for n, answer in enumerate(answers)], votes


@pytest.mark.parametrize(
    ("num_hostile", "at", "num_honest"),
    [
        (25, START + 0.5, 0),  # it votes first, and is all there is
        (25, START + 0.5, 3000),  # and then waits until it is under a percent
        (520, START + 0.5, 500),  # it has more than half of the votes
        (200, START + 100.0, 400),
    ],
)
def test_one_tenant_cannot_roll_a_candidate_back(num_hostile: int, at: float, num_honest: int) -> None:
    honest, evil = public(num_honest), hostile(num_hostile, at, OLD)
    evidence = evidence_of(RUN, honest[0] + evil[0], honest[1] + evil[1])
    assert evidence.decision != "fail"


@pytest.mark.parametrize("num_hostile", [12, 20, 400])
def test_one_tenant_cannot_promote_a_candidate(num_hostile: int) -> None:
    honest, evil = public(400, 0.8, 0.6), hostile(num_hostile, START + 0.5, NEW)
    assert evidence_of(RUN, honest[0] + evil[0], honest[1] + evil[1]).decision != "pass"


def test_the_tenant_that_evidence_rests_on_is_named() -> None:
    honest, evil = public(600), hostile(300, START + 1, OLD, every_s=2.0)
    evidence = evidence_of(RUN, honest[0] + evil[0], honest[1] + evil[1])
    assert evidence.harm >= evidence.bound
    assert "only the votes of tenant evil speak for harm" in evidence.why


def test_a_public_without_tenants_decides() -> None:
    assert evidence_of(RUN, *traffic(400, 0.9, 0.4)).decision == "fail"


def test_a_tenant_decides_alone_if_it_is_trusted() -> None:
    answers, votes = traffic(400, 0.9, 0.4)
    own = [replace(answer, tenant="acme") for answer in answers]
    assert evidence_of(RUN, own, votes).decision == "undecided"
    assert evidence_of(replace(RUN, trusted_tenants=frozenset({"acme"})), own, votes).decision == "fail"


def test_harm_that_every_tenant_sees_is_harm() -> None:
    assert evidence_of(RUN, *public(400, 0.9, 0.4, tenants=3)).decision == "fail"


def test_more_tenants_than_are_tested_at_once() -> None:
    assert evidence_of(RUN, *public(600, 0.9, 0.4, tenants=150)).decision == "fail"
