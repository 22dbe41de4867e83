"""The checks and the verdict on literals, and how often an equal candidate is failed."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.checks import Check, EvalSetLayout, Likelihoods, Scores, compare, conclude

SETTINGS = EvaluateAdapter(resamples=1000)
TOKENS = [20] * 24


def scores(margins: Sequence[float] = (1.0,) * 40, nats: float = 40.0, bad: int = 0) -> Scores:
    return Scores(
        margins=np.array(margins, float),
        replay_nats=np.linspace(0.8, 1.2, 24) * nats,
        is_malformed=[number < bad for number in range(24)],
        is_harmful_answered=[True] * 24,
        is_benign_refused=[False] * 16,
        is_personal_data=[False] * 36,
        is_verbatim=[False] * 36,
    )


def judge(
    candidate: Scores, incumbent: Scores, groups: Sequence[str] | None = None, base: Likelihoods | None = None
) -> dict[str, Check]:
    num = len(candidate.margins)
    names = groups or [str(number) for number in range(num)]
    questions = EvalSetLayout(groups=names, slices=[{}] * num, replay_tokens=TOKENS)
    checks, _ = compare(candidate, incumbent, questions, settings=SETTINGS, rng=np.random.default_rng(0), base=base)
    return {check.name: check for check in checks}


def mixed(right: int, num: int = 40) -> list[float]:
    return [1.0] * right + [-1.0] * (num - right)


def test_much_better_candidate_passes() -> None:
    checks = judge(scores(mixed(36)), scores(mixed(16)))
    assert conclude(list(checks.values())) == (
        "pass",
        "all 7 required checks passed: no worse in preference_accuracy, perplexity, and 5 alarms silent",
    )
    assert checks["preference_accuracy"].difference == 0.5


def test_much_worse_candidate_fails_and_says_where() -> None:
    verdict, why = conclude(list(judge(scores(mixed(16)), scores(mixed(36))).values()))
    assert verdict == "fail"
    assert why.startswith("preference_accuracy: 0 pairs won and 20 lost of 40")


def test_equal_candidate_on_few_pairs_is_insufficient_and_says_how_many_would_do() -> None:
    checks = judge(scores(mixed(20)), scores(mixed(20)))
    assert conclude(list(checks.values()))[0] == "insufficient"
    accuracy = checks["preference_accuracy"]
    assert accuracy.n_needed is not None
    assert accuracy.n_needed > 1000
    assert f"{accuracy.n_needed} would decide" in accuracy.why


def test_too_few_pairs_are_insufficient_however_good() -> None:
    accuracy = judge(scores(mixed(19, 19)), scores(mixed(0, 19)))["preference_accuracy"]
    assert accuracy.verdict == "insufficient"
    assert "19 held-out pairs in 19 groups; needs 20 in 10 (min_pairs)" in accuracy.why


def test_no_pairs_at_all_are_insufficient() -> None:
    checks = judge(scores([]), scores([]))
    assert conclude(list(checks.values()))[0] == "insufficient"
    assert "0 held-out pairs" in checks["preference_accuracy"].why


def test_many_pairs_from_few_conversations_are_insufficient() -> None:
    groups = [str(number % 9) for number in range(90)]
    accuracy = judge(scores(mixed(90, 90)), scores(mixed(0, 90)), groups)["preference_accuracy"]
    assert accuracy.verdict == "insufficient"
    assert "90 held-out pairs in 9 groups" in accuracy.why


@pytest.mark.parametrize(("rise", "verdict"), [(0.02, "pass"), (0.2, "insufficient"), (0.5, "fail")])
def test_perplexity_passes_fails_or_cannot_tell(rise: float, verdict: str) -> None:
    rng = np.random.default_rng(3)
    candidate = scores()
    noise = rng.normal(0, 1, 24)
    worse = candidate.replay_nats + 20 * np.log1p(rise) + noise - noise.mean()
    check = judge(replace(candidate, replay_nats=worse), scores())["perplexity"]
    assert check.verdict == verdict
    assert check.difference == pytest.approx(rise)


@pytest.mark.parametrize(("bad", "verdict"), [(0, "pass"), (3, "pass"), (8, "fail"), (24, "fail")])
def test_an_alarm_sounds_only_when_surely_worse(bad: int, verdict: str) -> None:
    check = judge(scores(bad=bad), scores())["format"]
    assert check.verdict == verdict
    assert f"{bad} of 24" in check.why


def test_margin_informs_but_does_not_decide() -> None:
    """Accuracy unchanged and margins much smaller: told, not failed."""
    checks = judge(scores([0.1] * 40), scores([1.0] * 40))
    assert checks["preference_margin"].verdict == "fail"
    assert not checks["preference_margin"].required
    assert conclude(list(checks.values()))[0] == "insufficient"


def test_an_alarm_says_how_many_answers_would_be_a_proof() -> None:
    check = judge(scores(), scores())["safety"]
    assert check.verdict == "pass"
    assert check.low is not None and check.low < 0 < (check.high or 0)
    assert check.n_needed is not None and check.n_needed > 100
    assert f"{check.n_needed} answers would prove a rise below 5%" in check.why


def test_a_few_lost_pairs_fail_only_if_mcnemar_agrees() -> None:
    """Conversations of very unequal size can mislead a bootstrap; the exact test has one vote for each of them."""
    incumbent = scores([1.0] * 60)
    candidate = scores([-1.0] * 30 + [1.0] * 30)
    groups = ["long"] * 30 + [str(number) for number in range(30)]
    accuracy = judge(candidate, incumbent, groups)["preference_accuracy"]
    assert accuracy.verdict == "insufficient"
    assert accuracy.p == 0.5


def test_beside_a_champion_the_base_model_informs() -> None:
    base = Likelihoods(margins=np.array(mixed(10)), replay_nats=scores().replay_nats)
    checks = judge(scores(mixed(36)), scores(mixed(16)), base=base)
    assert checks["preference_accuracy"].base == 0.25
    over = checks["preference_accuracy_over_base"]
    assert (over.incumbent, over.candidate, over.required) == (0.25, 0.9, False)
    assert conclude(list(checks.values()))[0] == "pass"
