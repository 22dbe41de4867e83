"""The length-controlled win rate and kappa against what they should be."""

import numpy as np
import pytest

from ratchet.evaluation.judge.calibration import calibrate, cohen_kappa, labelled
from ratchet.evaluation.judge.pairwise import AnswerPair, PairOutcome
from ratchet.evaluation.judge.win_rate import win_rate


def rate(marks, extra, *, groups=None, resamples=400):
    names = groups or [str(number) for number in range(len(marks))]
    return win_rate(
        np.array(marks, float), np.array(extra, float), names, resamples=resamples, rng=np.random.default_rng(0)
    )


def test_at_equal_length_it_is_the_plain_win_rate() -> None:
    found, drawn = rate([1.0] * 60 + [0.0] * 40, [0] * 100)
    assert found == pytest.approx(62 / 104)  # two imaginary wins and losses beside
    low, high = drawn.interval(0.95)
    assert low < 0.6 < high
    assert high - low == pytest.approx(2 * 1.96 * (0.24 / 104) ** 0.5, rel=0.15)


def test_wins_by_length_alone_are_taken_away() -> None:
    rng = np.random.default_rng(1)
    extra = rng.normal(60, 60, 400)
    marks = rng.random(400) < 1 / (1 + np.exp(-3 * np.tanh(extra / 60)))
    found, drawn = rate(marks, extra)
    low, high = drawn.interval(0.95)
    assert marks.mean() > 0.75
    assert low < 0.5 < high
    assert found == pytest.approx(0.5, abs=0.1)


def test_length_and_merit_are_told_apart() -> None:
    rng = np.random.default_rng(2)
    extra = rng.normal(0, 50, 2000)
    marks = rng.random(2000) < 1 / (1 + np.exp(-(0.8 + np.tanh(extra / 50))))
    assert rate(marks, extra, resamples=2)[0] == pytest.approx(1 / (1 + np.exp(-0.8)), abs=0.03)


def test_all_wins_by_the_longer_answer_stay_finite() -> None:
    found, drawn = rate([1.0] * 30, list(range(1, 31)))
    assert 0.5 < found < 1
    assert np.all(np.isfinite(drawn.draws))


def test_contests_of_one_conversation_count_as_one() -> None:
    marks = [1.0] * 50 + [0.0] * 50
    alone = rate(marks, [0] * 100)[1].interval(0.95)
    together = rate(marks, [0] * 100, groups=[str(number // 10) for number in range(100)])[1].interval(0.95)
    assert together[1] - together[0] > 1.7 * (alone[1] - alone[0])


def test_kappa_is_cohens() -> None:
    table = np.array([[20, 0, 5, 0, 0, 0, 10, 0, 15]], float)  # the textbook's 2 x 2 case
    assert cohen_kappa(table)[0] == pytest.approx(0.4)
    assert cohen_kappa(np.zeros((1, 9)))[0] == 0.0
    assert cohen_kappa(np.array([[9.0, 0, 0, 0, 0, 0, 0, 0, 0]]))[0] == 0.0, "one label shows nothing"


def test_a_judge_that_guesses_is_not_heard_and_one_that_agrees_is() -> None:
    rng = np.random.default_rng(3)
    human = [float(label) for label in rng.integers(2, size=100)]
    groups = [str(number) for number in range(100)]
    settings = {"confidence": 0.95, "resamples": 500, "rng": rng}
    guessing = [PairOutcome(float(mark)) for mark in rng.integers(2, size=100)]
    assert calibrate(human, guessing, groups, **settings).kappa_low < 0.1
    agreeing = [
        PairOutcome(label if number % 10 else 0.5, is_flip=number % 10 == 0) for number, label in enumerate(human)
    ]
    found = calibrate(human, agreeing, groups, **settings)
    assert (found.agreement, found.flip_rate) == (0.9, 0.1)
    assert found.kappa_low > 0.7
    assert np.sum(found.confusion) == found.n == 100


def test_without_votes_nothing_is_calibrated() -> None:
    found = calibrate([], [], [], confidence=0.95, resamples=10, rng=np.random.default_rng(0))
    assert (found.n, found.kappa, found.kappa_low) == (0, 0.0, 0.0)


def test_the_better_answer_stands_on_either_side() -> None:
    contests = [AnswerPair([], f"{number % 7}", f"{number % 5}", "g") for number in range(35)]
    turned, labels = labelled(contests)
    assert 0.2 < np.mean(labels) < 0.8
    for one, was, label in zip(turned, contests, labels, strict=True):
        if was.ours != was.theirs:
            assert (one.ours, one.theirs) == ((was.ours, was.theirs) if label else (was.theirs, was.ours))
