"""Baselines for the gate on the same votes: Flagger's thresholds, Kayenta's judge, and textbook tests.

Each gets the same draws as the gate and returns, per run, the block at which it rolls back.
"""

import numpy as np
from scipy.stats import norm

from ratchet.release.simulation.draws import NEVER, Draws, Floats, Ints

TICKS = 20  # looks of a scheduler over one canary
MIN_APPROVAL = 0.75  # Flagger's thresholdRange.min, five points below the truth that is simulated
FAILED_CHECKS = 5  # Flagger's threshold: failed checks add up over the run and never reset
CONFIDENCE = 0.98  # of the interval in Kayenta's NetflixACAJudge; its classifier's 0.25 of the estimate below
TOLERANCE = 0.25
MIN_POINTS = 4  # with fewer points a side a 98 percent rank interval is everything


def flagger_threshold(draws: Draws) -> Ints:
    """Flagger: each tick compares the window's approval with a minimum; FAILED_CHECKS failures roll back."""
    _, ups_b = _ticks(draws)
    approval = ups_b / (_blocks_a_tick(draws) * draws.num_b)
    failed = np.cumsum(approval < MIN_APPROVAL, axis=1)
    return _first(failed >= FAILED_CHECKS, _blocks_a_tick(draws))


def kayenta_judge(draws: Draws) -> Ints:
    """Kayenta: Mann-Whitney on the ticks' approvals so far, judged again each tick.

    Low, and so rolled back, when the upper end of the Hodges-Lehmann interval is below a quarter of its estimate
    under zero (kayenta, MannWhitneyClassifier.scala).
    """
    ups_a, ups_b = _ticks(draws)
    control = ups_a / (_blocks_a_tick(draws) * draws.num_a)
    experiment = ups_b / (_blocks_a_tick(draws) * draws.num_b)
    is_low = np.zeros((draws.num_runs, ups_a.shape[1]), dtype=bool)
    for n in range(MIN_POINTS, ups_a.shape[1] + 1):
        estimate, upper = _hodges_lehmann(experiment[:, :n], control[:, :n])
        is_low[:, n - 1] = upper < -TOLERANCE * np.abs(estimate)
    return _first(is_low, _blocks_a_tick(draws))


def fixed_sample_test(draws: Draws) -> Ints:
    """A one-sided two-proportion z-test at 5 percent, evaluated once, when all votes are in."""
    is_worse = _z(draws)[:, -1] > norm.isf(0.05)
    return np.where(is_worse, draws.num_blocks, NEVER)


def peeking_test(draws: Draws) -> Ints:
    """The same z-test after every block, acting on the first rejection."""
    return _first(_z(draws) > norm.isf(0.05), 1)


def _z(draws: Draws) -> Floats:
    n_a, n_b = (num * np.arange(1, draws.num_blocks + 1) for num in (draws.num_a, draws.num_b))
    p_a, p_b = np.cumsum(draws.ups_a, axis=1) / n_a, np.cumsum(draws.ups_b, axis=1) / n_b
    pooled = (p_a * n_a + p_b * n_b) / (n_a + n_b)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / n_a + 1 / n_b))
    z: Floats = np.divide(p_a - p_b, spread, out=np.zeros_like(spread), where=spread > 0)
    return z


def _hodges_lehmann(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Return the median of all differences x - y and the upper end of its asymptotic confidence interval, by row."""
    m, n = x.shape[1], y.shape[1]
    differences = np.sort((x[:, :, None] - y[:, None, :]).reshape(len(x), m * n), axis=1)
    reach = norm.isf((1 - CONFIDENCE) / 2) * np.sqrt(m * n * (m + n + 1) / 12)
    upper = min(m * n - 1, int(np.ceil(m * n / 2 + reach)))
    return np.median(differences, axis=1), differences[:, upper]


def _blocks_a_tick(draws: Draws) -> int:
    return max(1, draws.num_blocks // TICKS)


def _ticks(draws: Draws) -> tuple[Ints, Ints]:
    """Return the up votes of both arms by run and tick."""
    width = _blocks_a_tick(draws)
    num_ticks = draws.num_blocks // width
    ups_a, ups_b = (
        ups[:, : num_ticks * width].reshape(draws.num_runs, num_ticks, width).sum(axis=2)
        for ups in (draws.ups_a, draws.ups_b)
    )
    return ups_a, ups_b


def _first(is_true: np.ndarray, width: int) -> Ints:
    """Return the block at which a row is first true, given a column per `width` blocks; NEVER if none is."""
    return np.where(is_true.any(axis=1), (is_true.argmax(axis=1) + 1) * width, NEVER)
