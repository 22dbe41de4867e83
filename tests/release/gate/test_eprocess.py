"""The tests keep their promise: exactly per stratum against scipy's distribution, and by simulation over whole runs."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import nchypergeom_fisher

from ratchet.release.gate.design import alpha_of_attempt
from ratchet.release.gate.eprocess import (
    LOG_CAP,
    ConditionalTest,
    StratumCounts,
    capped_log_factors,
    harm_test,
    log_hypergeometric,
    log_odds,
    non_inferiority_test,
)

BOUND = math.log(1 / 0.05)
TESTS = {
    "harm": harm_test(),
    "no worse": non_inferiority_test(0.1, 0.8),
    "a wide margin": non_inferiority_test(0.3, 0.8),
}


@st.composite
def totals(draw: st.DrawFn) -> tuple[int, int, int]:
    votes = draw(st.integers(1, 32))
    return votes, draw(st.integers(0, votes)), draw(st.integers(0, votes))


def column(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def one(votes: int, ups: int, canary: int, null: float, alternative: float) -> np.ndarray:
    return capped_log_factors(column(votes), column(ups), column(canary), null, alternative)[0]


@given(totals(), st.floats(-3, 3))
def test_the_distribution_is_scipys(sizes: tuple[int, int, int], log_ratio: float) -> None:
    votes, ups, canary = sizes
    ours = np.exp(log_hypergeometric(column(votes), column(ups), column(canary), log_ratio)[0])
    theirs = nchypergeom_fisher(votes, ups, canary, math.exp(log_ratio)).pmf(np.arange(votes + 1))
    assert ours == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
@given(sizes=totals(), inside=st.floats(0, 4))
def test_a_stratum_never_gains_on_average_anywhere_in_the_null(
    test: ConditionalTest, sizes: tuple[int, int, int], inside: float
) -> None:
    votes, ups, canary = sizes
    for alternative in test.alternatives:
        towards_null = 1 if alternative < test.null else -1
        truth = nchypergeom_fisher(votes, ups, canary, math.exp(test.null + towards_null * inside))
        factors = np.exp(one(votes, ups, canary, test.null, alternative))
        assert (truth.pmf(np.arange(votes + 1)) * factors)[np.isfinite(factors)].sum() <= 1 + 1e-9


@pytest.mark.parametrize("test", TESTS.values(), ids=TESTS)
def test_the_cap_costs_nothing_at_the_boundary_and_holds(test: ConditionalTest) -> None:
    for alternative in test.alternatives:
        factors = one(32, 24, 8, test.null, alternative)
        truth = nchypergeom_fisher(32, 24, 8, math.exp(test.null)).pmf(np.arange(33))
        assert (truth * np.exp(factors)).sum() == pytest.approx(1, abs=1e-6)
        assert factors.max() <= LOG_CAP


@pytest.mark.parametrize(("ups", "canary"), [(0, 8), (32, 8), (24, 0), (24, 32)])
def test_totals_that_leave_one_outcome_are_no_evidence(ups: int, canary: int) -> None:
    factors = one(32, ups, canary, 0.0, math.log(0.5))
    assert not factors.any()


def test_evidence_does_not_depend_on_what_is_in_the_totals() -> None:
    """Equal odds in every stratum, at any approval and weight: log E is the sum of the strata's own."""
    counts = StratumCounts(column(32, 32, 20), column(24, 8, 15), column(6, 16, 3), column(3, 2, 1))
    log_e = harm_test().log_e(counts)
    alone = ConditionalTest(0.0, {math.log(0.43): 1.0})
    parts = [alone.log_e(StratumCounts(*(each[i : i + 1] for each in vars(counts).values())))[0] for i in range(3)]
    assert alone.log_e(counts) == pytest.approx(np.cumsum(parts))
    assert log_e.shape == (3,)


def test_experiments_in_one_array_are_independent() -> None:
    rng = np.random.default_rng(0)
    canary = rng.binomial(32, 0.2, (5, 20))
    ups = rng.binomial(32, 0.8, (5, 20))
    low, high = np.maximum(0, ups + canary - 32), np.minimum(ups, canary)
    counts = StratumCounts(np.full((5, 20), 32), ups, canary, rng.integers(low, high + 1))
    together = harm_test().log_e(counts)
    alone = [harm_test().log_e(StratumCounts(*(each[run] for each in vars(counts).values()))) for run in range(5)]
    assert together == pytest.approx(np.stack(alone))


def test_the_margin_is_the_odds_ratio_at_the_usual_approval() -> None:
    assert math.exp(non_inferiority_test(0.1, 0.8).null) == pytest.approx((0.7 / 0.3) / (0.8 / 0.2))
    assert log_odds(0.5) == 0


def test_attempts_share_one_alpha() -> None:
    assert sum(alpha_of_attempt(0.05, k) for k in range(1, 10_000)) == pytest.approx(0.05, rel=1e-3)
    assert alpha_of_attempt(0.05, 2) < alpha_of_attempt(0.05, 1) < 0.05
