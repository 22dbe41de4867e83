"""Votes become evidence the same way whatever their order, and only the votes that may count do."""

import random
from dataclasses import replace

import pytest

from ratchet.events import Feedback
from ratchet.release.gate.blocks import CanaryDesign, Tally, WeightSpan, block_shape
from ratchet.release.gate.evidence import EXCLUDED, ServedAnswer, Vote, weigh

OLD, NEW = "base", "b" * 64


def run_of(*spans: tuple[float, float, int], attempt: int = 1) -> CanaryDesign:
    return CanaryDesign(
        candidate=NEW,
        baseline=OLD,
        attempt=attempt,
        alpha=0.05,
        margin=0.1,
        spans=tuple(WeightSpan(start=start, end=end, weight=weight) for start, end, weight in spans),
    )


RUN = run_of((100.0, 110.0, 0), (110.0, 10_000.0, 50))


def served(number: int, digest: str, at: float) -> ServedAnswer:
    return ServedAnswer(interaction_id=f"i{number}", digest=digest, served_at=at)


def vote(number: int, is_up: bool, at: float, subject: str | None = None, interaction: str | None = None) -> Vote:
    return Vote(
        feedback_id=f"f{number}",
        interaction_id=interaction or f"i{number}",
        subject_id=subject or f"s{number}",
        is_up=is_up,
        created_at=at,
    )


def traffic(num: int, liked_old: float, liked_new: float, seed: int = 1, share: float = 0.5):
    """Each person asks once and votes once, one a second from t=111."""
    rng = random.Random(seed)
    answers, votes = [], []
    for number in range(num):
        is_new = rng.random() < share
        answers.append(served(number, NEW if is_new else OLD, 111.0 + number))
        votes.append(vote(number, rng.random() < (liked_new if is_new else liked_old), 111.5 + number))
    return answers, votes


def test_a_worse_candidate_fails() -> None:
    evidence = weigh(RUN, *traffic(300, 0.9, 0.3))
    assert evidence.decision == "fail"
    assert evidence.harm >= evidence.bound > evidence.non_inferiority
    assert "less" in evidence.why


def test_a_better_candidate_passes() -> None:
    evidence = weigh(RUN, *traffic(300, 0.4, 0.85))
    assert evidence.decision == "pass"
    assert evidence.non_inferiority >= evidence.bound > evidence.harm


def test_few_votes_decide_nothing() -> None:
    assert weigh(RUN, *traffic(6, 0.9, 0.3)).decision == "undecided"


def test_a_second_attempt_needs_more() -> None:
    answers, votes = traffic(30, 0.4, 0.85)
    second = run_of((100.0, 10_000.0, 50), attempt=2)
    assert weigh(second, answers, votes).bound > weigh(RUN, answers, votes).bound


@pytest.mark.parametrize("seed", range(3))
def test_order_and_repetition_of_events_change_nothing(seed: int) -> None:
    answers, votes = traffic(80, 0.8, 0.6)
    mixed = (answers + answers[:10], votes + votes[:20])
    for events in mixed:
        random.Random(seed).shuffle(events)
    assert weigh(RUN, *mixed) == weigh(RUN, answers, votes)


def test_history_of_a_part_is_the_start_of_the_whole() -> None:
    answers, votes = traffic(120, 0.8, 0.5)
    part, whole = weigh(RUN, answers, votes[:60]), weigh(RUN, answers, votes)
    assert part.history == whole.history[: len(part.history)]
    assert 0 < len(part.history) < len(whole.history)


def test_only_the_first_vote_of_a_person_on_this_run_counts() -> None:
    answers = [
        served(1, NEW, 120.0),
        served(2, OLD, 121.0),
        served(3, "c" * 64, 122.0),  # neither arm
        served(4, NEW, 90.0),  # before the run
    ]
    votes = [
        vote(1, True, 130.0, subject="a"),
        vote(2, False, 131.0, subject="a"),  # repeats
        vote(3, False, 132.0, subject="b"),
        vote(4, False, 133.0, subject="c"),
        vote(5, False, 134.0, subject="d", interaction="nowhere"),
        vote(6, False, 135.0, subject="e", interaction="i2"),
    ]
    evidence = weigh(RUN, answers, votes)
    assert evidence.votes == {"primary": Tally(1, 0), "canary": Tally(1, 1)}
    assert evidence.excluded == dict.fromkeys(EXCLUDED, 1)
    assert sum(tally.n for tally in evidence.votes.values()) + sum(evidence.excluded.values()) == len(votes)


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


@pytest.mark.parametrize(
    ("weight", "shape"),
    [(5, (19, 1)), (10, (9, 1)), (20, (4, 1)), (40, (2, 1)), (50, (1, 1)), (80, (1, 4)), (100, (1, 1))],
)
def test_blocks_have_the_shape_of_the_traffic(weight: int, shape: tuple[int, int]) -> None:
    assert block_shape(weight) == shape


def test_a_block_keeps_the_shape_it_was_opened_with() -> None:
    run = run_of((100.0, 200.0, 20), (200.0, 10_000.0, 50))
    late = [served(number, OLD, 205.0 + number) for number in range(4)]
    votes = [vote(number, True, 205.0 + number) for number in range(4)]
    canary = served(9, NEW, 150.0)
    evidence = weigh(run, [canary, *late], [vote(9, True, 150.0), *votes])
    assert [point.votes["primary"].n for point in evidence.history] == [4]  # opened at 20 percent: four to one


def test_traffic_that_arrives_as_sent_raises_no_alarm() -> None:
    run = run_of((100.0, 110.0, 0), (110.0, 600.0, 20), (610.0, 2_000.0, 50))
    early, _ = traffic(480, 0.8, 0.8, share=0.2)
    late = [replace(answer, served_at=answer.served_at + 510) for answer in traffic(900, 0.8, 0.8, seed=2)[0]]
    late = [replace(answer, interaction_id=f"late-{answer.interaction_id}") for answer in late]
    evidence = weigh(run, early + late, [])
    assert evidence.srm_log_e < 0
    assert not evidence.has_srm_alarm


def test_traffic_that_does_not_arrive_as_sent_is_never_passed() -> None:
    answers, votes = traffic(300, 0.4, 0.85, share=0.5)
    run = run_of((110.0, 10_000.0, 20))
    evidence = weigh(run, answers, votes)
    assert evidence.non_inferiority >= evidence.bound
    assert evidence.has_srm_alarm
    assert evidence.decision == "undecided"
    assert "as the route sends them" in evidence.why


def test_an_answer_that_straddles_a_step_is_not_held_against_the_split() -> None:
    run = run_of((100.0, 199.0, 0), (200.0, 300.0, 50))
    slow = ServedAnswer(interaction_id="i", digest=OLD, served_at=205.0, latency_s=10.0)
    assert weigh(run, [slow], []).srm_log_e == 0


def brigade(num: int, share: float, seed: int = 1, likes: float = 0.8):
    """Traffic at 50 percent; a share of the people is one tenant's, who votes the candidate down and the other up."""
    rng = random.Random(seed)
    answers, votes = traffic(num, likes, likes, seed)
    for number, answer in enumerate(answers):
        is_hostile = rng.random() < share
        answers[number] = replace(answer, tenant="hostile" if is_hostile else f"tenant-{number % 7}")
        if is_hostile:
            votes[number] = replace(votes[number], is_up=answer.digest == OLD)
    return answers, votes


def test_one_tenant_cannot_roll_a_candidate_back() -> None:
    evidence = weigh(RUN, *brigade(400, 0.3))
    assert evidence.harm >= evidence.bound
    assert evidence.decision == "undecided"
    assert "only the votes of tenant hostile" in evidence.why


def test_one_tenant_cannot_promote_a_candidate() -> None:
    answers, votes = traffic(300, 0.6, 0.5)
    for number, answer in enumerate(answers[:100]):
        answers[number] = replace(answer, tenant="friend")
        votes[number] = replace(votes[number], is_up=answer.digest == NEW)
    evidence = weigh(RUN, answers, votes)
    assert evidence.non_inferiority >= evidence.bound
    assert (evidence.decision, "tenant friend" in evidence.why) == ("undecided", True)


def test_a_tenant_who_is_most_of_the_public_decides() -> None:
    assert weigh(RUN, *brigade(400, 0.9)).decision == "fail"


def test_harm_that_every_tenant_sees_is_harm() -> None:
    answers, votes = traffic(300, 0.9, 0.4)
    spread = [replace(answer, tenant=f"tenant-{number % 3}") for number, answer in enumerate(answers)]
    assert weigh(RUN, spread, votes).decision == "fail"


def test_brigades_of_one_tenant_roll_back_no_more_equal_candidates_than_chance_does() -> None:
    decisions = [weigh(RUN, *brigade(240, 0.25, seed=seed)).decision for seed in range(60)]
    assert decisions.count("fail") <= 6  # 60 runs at 3 percent: more than 6 is one in 10,000


def test_voters_who_speak_up_on_one_arm_alone_hold_the_promotion() -> None:
    answers, votes = traffic(400, 0.5, 0.9)
    kept = [vote for vote, answer in zip(votes, answers, strict=True) if answer.digest == NEW or vote.is_up]
    evidence = weigh(RUN, answers, kept)
    assert evidence.srm_log_e < evidence.vote_srm_log_e
    assert evidence.has_srm_alarm
    assert evidence.decision != "pass"
