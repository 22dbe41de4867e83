"""The statistics on literals, and their stated error rates by simulation."""

import numpy as np
import pytest

from ratchet.evaluation.statistics import Resampled, bootstrap_means, holm, mcnemar_p, num_needed, three_valued


def draws(values, groups, *, has_prior=False, seed=0, resamples=2000):
    return bootstrap_means(
        values, np.ones(len(values)), groups, rng=np.random.default_rng(seed), resamples=resamples, has_prior=has_prior
    )


def one_each(num: int) -> list[str]:
    return [str(number) for number in range(num)]


def test_interval_holds_the_mean_and_narrows_with_the_root_of_the_sample() -> None:
    values = np.tile([1.0, 0.0, -1.0, 1.0], 25)
    low, high = draws(values, one_each(100)).interval(0.95)
    assert low < 0.25 < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 10, rel=0.1)


def test_rows_of_one_group_count_as_one() -> None:
    values = np.repeat([1.0, -1.0] * 10, 5)
    alone = draws(values, one_each(100)).interval(0.95)
    together = draws(values, [str(row // 5) for row in range(100)]).interval(0.95)
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_counts_weigh_documents_by_their_length() -> None:
    means = bootstrap_means([8.0, 0.0], [8, 2], ["a", "b"], rng=np.random.default_rng(0), resamples=500)
    assert set(np.round(means.draws, 6)) == {0.0, 0.8, 1.0}


def test_full_agreement_is_not_certainty() -> None:
    never_differ = np.zeros(30)
    assert draws(never_differ, one_each(30)).interval(0.95) == (0.0, 0.0)
    low, high = draws(never_differ, one_each(30), has_prior=True).interval(0.95)
    assert low < -0.05
    assert high > 0.05


def test_p_value_is_never_zero() -> None:
    assert 0 < Resampled(np.full(999, -1.0), 10**6).p_below(0.0) == pytest.approx(0.001, rel=0.05)
    assert Resampled(np.full(999, 1.0), 10**6).p_below(0.0) > 0.99


def test_few_groups_widen_the_interval_as_students_t_does() -> None:
    normal = np.random.default_rng(0).normal(size=200_000)
    _, high = Resampled(normal, 12).interval(0.95)
    assert high == pytest.approx(2.201 * (12 / 11) ** 0.5, rel=0.02)  # t with 11 degrees of freedom, at 0.975
    _, high = Resampled(normal, 10_000).interval(0.95)
    assert high == pytest.approx(1.96, rel=0.02)


def test_interval_and_p_value_agree() -> None:
    found = Resampled(np.random.default_rng(1).normal(size=20_000), 15)
    low, _ = found.interval(0.95)
    assert found.p_below(low + 1e-3) > 0.5 > 1 - 0.975 > 1 - found.p_below(low - 1e-3) - 0.01


@pytest.mark.parametrize(("lost", "won", "p"), [(0, 0, 1.0), (0, 5, 1.0), (5, 0, 1 / 32), (3, 1, 5 / 16)])
def test_mcnemar_is_the_binomial_tail(lost: int, won: int, p: float) -> None:
    assert mcnemar_p(lost, won) == p


def test_holm_stops_at_the_first_that_is_kept() -> None:
    # Ordered limits at 0.05 are 0.05/4, 0.05/3, 0.05/2, 0.05: `c` is kept, and with it `d`, whatever its own limit.
    assert holm({"d": 0.04, "a": 0.01, "c": 0.03, "b": 0.015}, 0.05) == {"a", "b"}
    assert holm({"a": 0.03, "b": 0.04}, 0.05) == set()


def test_three_values() -> None:
    assert three_valued(-0.01, -0.01, is_surely_worse=False) == "pass"
    assert three_valued(-0.02, -0.01, is_surely_worse=False) == "insufficient"
    assert three_valued(-0.02, -0.01, is_surely_worse=True) == "fail"


def test_num_needed_follows_the_square_of_the_width() -> None:
    assert num_needed(40, -0.10, 0.10, difference=0.0, threshold=-0.05) == 160
    assert num_needed(40, -0.10, 0.10, difference=-0.05, threshold=-0.05) is None
    assert num_needed(40, 0.0, 0.1, difference=0.05, threshold=-0.5) == 40


@pytest.mark.parametrize("loss_share", [0.05, 0.2])
def test_interval_covers_as_often_as_it_says(loss_share: float) -> None:
    """Sixty pairs, equal models that disagree rarely or often: the truth, 0, is missed in at most some 5%."""
    rng = np.random.default_rng(7)
    missed = 0
    for trial in range(400):
        values = rng.choice([-1.0, 0.0, 1.0], p=[loss_share, 1 - 2 * loss_share, loss_share], size=60)
        low, high = draws(values, one_each(60), has_prior=True, seed=trial, resamples=400).interval(0.95)
        missed += not low <= 0 <= high
    assert missed / 400 <= 0.065  # 5% and one and a half standard errors of the simulation
