"""Test paired samples, also small ones: cluster bootstrap, exact McNemar, Holm's correction, three-valued verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil, comb, sqrt
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

Verdict = Literal["pass", "fail", "insufficient"]
Floats = NDArray[np.float64]

PRIOR_PAIRS = 2
"""Pseudo-observations: this many wins, and as many losses, are added to a sample of wins, ties and losses. One of each
is the adjustment of Bonett and Price (2012); `ratchet error-rates` shows that a percentile bootstrap needs two."""


@dataclass(frozen=True)
class Resampled:
    """Bootstrap draws of a mean, and the number of groups (pseudo-observations included) that were resampled.

    Percentiles are widened to match Student's t with that many groups: Hesterberg, "What teachers should
    know about the bootstrap" (2015), section 4.4, "expanded percentile interval". Without it, intervals from 12 to 30
    groups are too narrow.
    """

    draws: Floats
    num_groups: int

    def interval(self, confidence: float) -> tuple[float, float]:
        """Return the two-sided interval."""
        quantile = -special.stdtrit(self.num_groups - 1, (1 - confidence) / 2) * self._widening
        tail = float(special.ndtr(-quantile))
        low, high = np.quantile(self.draws, [tail, 1 - tail])
        return float(low), float(high)

    def p_below(self, threshold: float) -> float:
        """Return the one-sided p-value against "the truth is at least the threshold"; with finite draws never 0."""
        above = (1 + np.count_nonzero(self.draws >= threshold)) / (2 + len(self.draws))
        return float(special.stdtr(self.num_groups - 1, special.ndtri(above) / self._widening))

    @property
    def _widening(self) -> float:
        return sqrt(self.num_groups / (self.num_groups - 1))


def bootstrap_means(
    values: ArrayLike,
    counts: ArrayLike,
    groups: Sequence[str],
    *,
    rng: np.random.Generator,
    resamples: int,
    has_prior: bool = False,
) -> Resampled:
    """Draw sum(values) / sum(counts), resampling whole groups, because the errors within a group are correlated.

    With `has_prior`, PRIOR_PAIRS pseudo-groups of average size, wholly +1, and as many wholly -1 join the sample: a
    plain bootstrap of rows that never disagree has no width, and would take ten agreements for proof.
    """
    sums, sizes = by_group(values, groups), by_group(counts, groups)
    if has_prior:
        size = np.full(PRIOR_PAIRS, sizes.mean())
        sums, sizes = np.concatenate([sums, size, -size]), np.concatenate([sizes, size, size])
    # Equal groups are drawn together: votes come in few distinct kinds, however many there are.
    kinds, times = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    picks = rng.multinomial(len(sums), times / len(sums), size=resamples)
    totals = picks.astype(float) @ kinds
    return Resampled(totals[:, 0] / totals[:, 1], len(sums))


def by_group(values: ArrayLike, groups: Sequence[str]) -> Floats:
    """Return the sum of each group's values, in the order of the groups' names."""
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    sums: Floats = np.bincount(index, weights=np.asarray(values, float)).astype(float)
    return sums


def mcnemar_p(lost: int, won: int) -> float:
    """Return McNemar's exact one-sided p: of at least `lost` losses among the disagreements if neither is worse."""
    disagreements = lost + won
    return float(sum(comb(disagreements, k) for k in range(lost, disagreements + 1)) / 2**disagreements)


def holm(p_values: Mapping[str, float], alpha: float) -> set[str]:
    """Return the names whose hypothesis is rejected, at a family-wise error rate of `alpha` (Holm 1979)."""
    rejected: set[str] = set()
    for name, p in sorted(p_values.items(), key=lambda item: item[1]):
        if p > alpha / (len(p_values) - len(rejected)):
            break
        rejected.add(name)
    return rejected


def three_valued(low: float, threshold: float, *, is_surely_worse: bool) -> Verdict:
    """Return fail if surely worse, pass if the whole interval is above the threshold, else insufficient."""
    if is_surely_worse:
        return "fail"
    return "pass" if low >= threshold else "insufficient"


def num_needed(num: int, low: float, high: float, difference: float, threshold: float) -> int | None:
    """Return the sample size at which the interval would clear the threshold if the difference stayed the same.

    Normal approximation: the half-width shrinks with the square root of the sample. None if the difference is at the
    threshold, which no sample decides.
    """
    distance = abs(difference - threshold)
    if distance < 1e-9:
        return None
    return max(num, ceil(num * ((high - low) / 2 / distance) ** 2))
