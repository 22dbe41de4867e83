"""Test whether a distribution has shifted: the shift must be both large and statistically significant. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log, sqrt

LARGE_INDEX = 0.25  # the credit-scoring convention for "major shift": Siddiqi, Credit Risk Scorecards (2006)
LARGE_CHANGE = 0.1  # of a share; the release gate's default non-inferiority margin
ALPHA = 0.01  # for each day's test; Bonferroni-corrected for three signals, not for days
SMOOTHING = 0.5  # added to every bin: an empty one would make the index infinite


@dataclass(frozen=True, kw_only=True)
class Shift:
    """One signal: the size of its shift, and the p-value of a shift of that size without drift."""

    signal: str
    measure: str
    reference: Mapping[str, float]
    recent: Mapping[str, float]
    size: float
    limit: float
    p: float

    def is_drift(self, alpha: float) -> bool:
        return self.size >= self.limit and self.p <= alpha


def stability_index(signal: str, reference: Mapping[str, int], recent: Mapping[str, int]) -> Shift:
    """Compute the population stability index of recent against reference counts, bin by bin.

    Without drift it is (1/n + 1/m) times a chi-square with one degree of freedom less than there are bins (Yurdakul
    and Naranjo 2020), so a small sample has a large index by chance; `p` is the probability of that.
    """
    from scipy.stats import chi2

    bins = sorted({*reference, *recent})
    before, after = (_shares(counts, bins) for counts in (reference, recent))
    index = sum((after[name] - before[name]) * log(after[name] / before[name]) for name in bins)
    scale = 1 / sum(reference.values()) + 1 / sum(recent.values())
    p = float(chi2.sf(index / scale, len(bins) - 1)) if len(bins) > 1 else 1.0
    return Shift(
        signal=signal, measure="stability index", reference=before, recent=after, size=index, limit=LARGE_INDEX, p=p
    )


def share_change(signal: str, reference: tuple[int, int], recent: tuple[int, int]) -> Shift:
    """Test the change of a share, given as (hits, total) before and after, with the pooled two-sided z-test."""
    from scipy.stats import norm

    (hits_before, before), (hits_after, after) = reference, recent
    share_before, share_after = hits_before / before, hits_after / after
    pooled = (hits_before + hits_after) / (before + after)
    error = sqrt(pooled * (1 - pooled) * (1 / before + 1 / after))
    size = abs(share_after - share_before)
    return Shift(
        signal=signal,
        measure="change of share",
        reference={"share": share_before},
        recent={"share": share_after},
        size=size,
        limit=LARGE_CHANGE,
        p=float(2 * norm.sf(size / error)) if error else 1.0,
    )


def _shares(counts: Mapping[str, int], bins: list[str]) -> dict[str, float]:
    total = sum(counts.values()) + SMOOTHING * len(bins)
    return {name: (counts.get(name, 0) + SMOOTHING) / total for name in bins}
