"""Paired comparisons with honest small samples: clustered bootstrap, exact McNemar, Holm, three-valued judgement."""

from collections.abc import Mapping, Sequence
from math import ceil, comb
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["pass", "fail", "insufficient"]
Floats = NDArray[np.float64]


def bootstrap_means(
    values: ArrayLike,
    counts: ArrayLike,
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int,
    has_prior: bool = False,
) -> Floats:
    """Draws of sum(values) / sum(counts), resampling whole groups, because rows of one group err together.

    With `has_prior`, two imaginary groups of average size, one wholly +1 and one wholly -1, join the sample. It is
    the adjustment of Bonett and Price (2012) for paired proportions: a plain bootstrap of rows that never disagree
    has no width, and would call ten agreements proof.
    """
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    sums = np.bincount(index, weights=np.asarray(values, float))
    sizes = np.bincount(index, weights=np.asarray(counts, float))
    if has_prior:
        size = sizes.mean()
        sums, sizes = np.append(sums, [size, -size]), np.append(sizes, [size, size])
    picks = rng.integers(len(sums), size=(resamples, len(sums)))
    means: Floats = sums[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    return means


def interval(draws: Floats, confidence: float) -> tuple[float, float]:
    """The two-sided percentile interval."""
    tail = (1 - confidence) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return float(low), float(high)


def bootstrap_p(draws: Floats, threshold: float) -> float:
    """One-sided p-value against "the truth is at least the threshold"; never 0, since draws are finite."""
    return float((1 + np.count_nonzero(draws >= threshold)) / (1 + len(draws)))


def mcnemar_p(lost: int, won: int) -> float:
    """Exact one-sided McNemar: the chance of at least `lost` losses among the disagreements if neither is worse."""
    disagreements = lost + won
    return float(sum(comb(disagreements, k) for k in range(lost, disagreements + 1)) / 2**disagreements)


def holm(p_values: Mapping[str, float], alpha: float) -> set[str]:
    """Names whose hypothesis is rejected, with at most `alpha` chance of any false rejection (Holm 1979)."""
    rejected: set[str] = set()
    for name, p in sorted(p_values.items(), key=lambda item: item[1]):
        if p > alpha / (len(p_values) - len(rejected)):
            break
        rejected.add(name)
    return rejected


def three_valued(low: float, threshold: float, *, is_surely_worse: bool) -> Verdict:
    """Fail if surely below the threshold, pass if surely not (the whole interval is above), else insufficient."""
    if is_surely_worse:
        return "fail"
    return "pass" if low >= threshold else "insufficient"


def num_needed(num: int, low: float, high: float, difference: float, threshold: float) -> int | None:
    """Sample size at which the interval would clear the threshold if the difference stayed as seen.

    Normal approximation: the half-width shrinks with the root of the sample. None where the difference is at the
    threshold, which no sample decides.
    """
    distance = abs(difference - threshold)
    if distance < 1e-9:
        return None
    return max(num, ceil(num * ((high - low) / 2 / distance) ** 2))
