"""Baselines for the gate on the same votes: Flagger's thresholds, Kayenta's judge, and textbook tests.

Each gets the same draws as the gate and returns, per run, the canary votes at which it rolls back; inf for never.
"""

import numpy as np
from scipy.stats import norm

from ratchet.release.gate.eprocess import Floats
from ratchet.release.simulation.draws import Bools, Draws

TICKS = 20  # looks of a scheduler over one canary
PEEKS = 400  # looks of someone who cannot wait
MIN_APPROVAL = 0.75  # Flagger's thresholdRange.min, five points below the truth that is simulated
FAILED_CHECKS = 5  # Flagger's threshold: failed checks add up over the run and never reset
CONFIDENCE = 0.98  # of the interval in Kayenta's NetflixACAJudge; its classifier's 0.25 of the estimate below
TOLERANCE = 0.25
MIN_POINTS = 4  # with fewer points a side a 98 percent rank interval is everything


def flagger_threshold(draws: Draws) -> Floats:
    """Flagger: each tick compares the window's approval with a minimum; FAILED_CHECKS failures roll back."""
    _, approval = _approval(draws, TICKS)
    failed = np.cumsum(approval < MIN_APPROVAL, axis=1)
    return _votes_at_first(failed >= FAILED_CHECKS, draws)


def kayenta_judge(draws: Draws) -> Floats:
    """Kayenta: Mann-Whitney on the ticks' approvals so far, judged again each tick.

    Low, and so rolled back, when the upper end of the Hodges-Lehmann interval is below a quarter of its estimate
    under zero (kayenta, MannWhitneyClassifier.scala).
    """
    control, experiment = _approval(draws, TICKS)
    is_low = np.zeros(control.shape, dtype=bool)
    for n in range(MIN_POINTS, TICKS + 1):
        estimate, upper = _hodges_lehmann(experiment[:, :n], control[:, :n])
        is_low[:, n - 1] = upper < -TOLERANCE * np.abs(estimate)
    return _votes_at_first(is_low, draws)


def fixed_sample_test(draws: Draws) -> Floats:
    """A one-sided two-proportion z-test at 5 percent, evaluated once, when all votes are in."""
    return _votes_at_first(_z(draws, 1) > norm.isf(0.05), draws)


def peeking_test(draws: Draws) -> Floats:
    """The same z-test after every few votes, acting on the first rejection."""
    return _votes_at_first(_z(draws, PEEKS) > norm.isf(0.05), draws)


def _z(draws: Draws, looks: int) -> Floats:
    n_a, up_a, n_b, up_b = (counts.cumsum(axis=1) for counts in _windows(draws, looks))
    p_a, p_b = up_a / np.maximum(n_a, 1), up_b / np.maximum(n_b, 1)
    pooled = (up_a + up_b) / np.maximum(n_a + n_b, 1)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / np.maximum(n_a, 1) + 1 / np.maximum(n_b, 1)))
    z: Floats = np.divide(p_a - p_b, spread, out=np.zeros_like(spread), where=(spread > 0) & (n_a > 0) & (n_b > 0))
    return z


def _hodges_lehmann(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the median of all differences x - y and the upper end of its asymptotic confidence interval, by row."""
    m, n = x.shape[1], y.shape[1]
    differences = np.sort((x[:, :, None] - y[:, None, :]).reshape(len(x), m * n), axis=1)
    reach = norm.isf((1 - CONFIDENCE) / 2) * np.sqrt(m * n * (m + n + 1) / 12)
    upper = min(m * n - 1, int(np.ceil(m * n / 2 + reach)))
    return np.median(differences, axis=1), differences[:, upper]


def _approval(draws: Draws, looks: int) -> tuple[Floats, Floats]:
    """Return both arms' approval in each window between two looks; 1 where nobody voted."""
    n_a, up_a, n_b, up_b = _windows(draws, looks)
    return np.where(n_a > 0, up_a / np.maximum(n_a, 1), 1.0), np.where(n_b > 0, up_b / np.maximum(n_b, 1), 1.0)


def _windows(draws: Draws, looks: int) -> tuple[Floats, Floats, Floats, Floats]:
    """Return, per run and window, the baseline's votes and ups and the candidate's."""
    edges = np.linspace(0, draws.is_up.shape[1], looks + 1).astype(np.int64)[:-1]

    def sums(is_one: Bools) -> Floats:
        counts: Floats = np.add.reduceat(is_one, edges, axis=1, dtype=np.float64)
        return counts

    is_a, is_b = draws.is_read & ~draws.is_canary, draws.is_read & draws.is_canary
    return sums(is_a), sums(is_a & draws.is_up), sums(is_b), sums(is_b & draws.is_up)


def _votes_at_first(is_true: Bools, draws: Draws) -> Floats:
    _, _, canary, _ = _windows(draws, is_true.shape[1])
    votes = np.take_along_axis(canary.cumsum(axis=1), is_true.argmax(axis=1)[:, None], axis=1)[:, 0]
    return np.where(is_true.any(axis=1), votes, np.inf)


METHODS = {
    "Flagger's threshold": flagger_threshold,
    "Kayenta's Mann-Whitney": kayenta_judge,
    "fixed-sample test": fixed_sample_test,
    "the same, at every look": peeking_test,
}
