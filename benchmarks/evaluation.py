"""The clustered bootstrap of the offline gate against scipy's on the same votes.

How often the gate errs is another question: `ratchet error-rates` answers it.
"""

import time
from collections.abc import Callable

import numpy as np
from scipy import stats

from ratchet.evaluation.statistics import bootstrap_means

NUM_PAIRS = 2000
RESAMPLES = 2000
REPEATS = 3


def run() -> dict[str, float]:
    """Intervals a second of each arm, the best of REPEATS interleaved runs."""
    rng = np.random.default_rng(0)
    votes = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1], size=NUM_PAIRS)
    groups = [str(number) for number in range(NUM_PAIRS)]
    arms = {
        "ours": lambda: _ours(votes, groups, rng),
        "scipy": lambda: _scipy(votes, rng),
        "numpy mean": lambda: float(np.mean(votes)),
    }
    best = dict.fromkeys(arms, 0.0)
    for _ in range(REPEATS):
        for name, arm in arms.items():
            best[name] = max(best[name], _per_second(arm))
    return best


def _per_second(arm: Callable[[], float]) -> float:
    start = time.perf_counter()
    arm()
    return 1 / (time.perf_counter() - start)


def _ours(votes: "np.ndarray", groups: list[str], rng: np.random.Generator) -> float:
    drawn = bootstrap_means(votes, np.ones(len(votes)), groups, rng=rng, resamples=RESAMPLES, has_prior=True)
    return drawn.interval(0.95)[0]


def _scipy(votes: "np.ndarray", rng: np.random.Generator) -> float:
    found = stats.bootstrap((votes,), np.mean, n_resamples=RESAMPLES, method="percentile", rng=rng)
    return float(found.confidence_interval.low)
