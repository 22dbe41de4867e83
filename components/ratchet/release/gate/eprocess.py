"""Two-sample tests of votes that stay valid however often they are looked at, and whatever moves approval.

Votes come in strata: groups of votes on answers that were served one after another. Within a stratum the route gave
answers to the arms at random, so given the stratum's votes, its ups and the candidate's share of the votes, the
candidate's ups follow Fisher's noncentral hypergeometric distribution in the odds ratio of the candidate's approval to
the baseline's (McCullagh & Nelder, Generalized Linear Models, 7.3.2). Approval, its drift, the route's weight and an
unequal eagerness to vote are in the totals, and drop out.

For each alternative a stratum multiplies the evidence by its likelihood ratio against the null's boundary, capped.
The likelihood ratio is monotone in the ups, so the mean is at most 1 at every point of the composite null. The
product is an e-process, and by Ville's inequality the chance that it ever reaches 1/alpha under the null is at most
alpha.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

STRATUM_VOTES = 32
# No stratum multiplies the evidence by more than 2.9: whoever fills a moment with votes gains that, and no more.
LOG_CAP = 1.05
MAX_LOG_SCALE, BISECTIONS = 64.0, 50  # e^64 is more than any cap takes; 50 halvings find c to float precision


@dataclass(frozen=True)
class StratumCounts:
    """Votes of strata, in order of time along the last axis; the other axes are experiments of their own."""

    votes: Ints
    ups: Ints
    canary: Ints
    """Votes on the candidate's answers."""
    canary_ups: Ints

    def without(self, others: "StratumCounts") -> "StratumCounts":
        """Return the counts less those of `others`, which may have more leading axes."""
        return StratumCounts(
            self.votes - others.votes,
            self.ups - others.ups,
            self.canary - others.canary,
            self.canary_ups - others.canary_ups,
        )


@dataclass(frozen=True)
class ConditionalTest:
    """A mixture of capped likelihood ratios of alternatives against the null's boundary."""

    null: float
    """Log odds ratio of candidate to baseline at the boundary."""
    alternatives: Mapping[float, float]
    """Log odds ratios on the other side of it, each with its share of the evidence."""

    def log_e(self, counts: StratumCounts) -> Floats:
        """Return the log evidence after each stratum, of the shape of the counts."""
        # Equal strata have equal factors: each distinct one is worked out once.
        totals = np.stack([counts.votes, counts.ups, counts.canary]).reshape(3, -1)
        (votes, ups, canary), places = np.unique(totals, axis=1, return_inverse=True)
        log_e = np.full(counts.votes.shape, -np.inf)
        for alternative, share in self.alternatives.items():
            table = capped_log_factors(votes, ups, canary, self.null, alternative)
            factors = table[places.ravel(), counts.canary_ups.ravel()].reshape(counts.votes.shape)
            np.logaddexp(log_e, math.log(share) + factors.cumsum(axis=-1), out=log_e)
        return log_e


def harm_test() -> ConditionalTest:
    """Return the test for harm: evidence that users like the candidate less than the baseline."""
    # At an approval of 0.80 these odds ratios stand for 17, 5 and 36 points less. Most of the evidence is on the first:
    # ten points are found within 150 canary votes even so, and a few hostile voters, who look like two points, gain
    # little. The second finds small harm in long runs, the third disasters (`ratchet simulate-gate`).
    return ConditionalTest(0.0, {math.log(0.43): 0.87, math.log(0.75): 0.08, math.log(0.2): 0.05})


def non_inferiority_test(margin: float, approval: float) -> ConditionalTest:
    """Return the test for non-inferiority: evidence that the candidate is not worse by the margin's odds ratio.

    That is the odds ratio which lowers `approval` by `margin`, both chances.
    """
    null = log_odds(approval - margin) - log_odds(approval)
    return ConditionalTest(null, {0.0: 0.6, null / 2: 0.1, math.log(1.7): 0.2, math.log(4): 0.1})


def log_odds(chance: float) -> float:
    return math.log(chance / (1 - chance))


def log_hypergeometric(votes: Ints, ups: Ints, canary: Ints, log_ratio: float) -> Floats:
    """Return the log chance of each number of canary ups, 0 … max(votes): one row a stratum, one column a number.

    Fisher's noncentral hypergeometric distribution with the odds ratio exp(`log_ratio`); -inf where impossible.
    """
    x = np.arange(votes.max(initial=0) + 1)
    n, k, m = votes[:, None], ups[:, None], canary[:, None]
    is_possible = (x <= m) & (x <= k) & (k - x <= n - m)
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, len(x) + 1)))])

    def log_choose(total: Ints, chosen: Ints) -> Floats:
        chosen = np.clip(chosen, 0, total)
        chances: Floats = log_factorials[total] - log_factorials[chosen] - log_factorials[total - chosen]
        return chances

    logs = np.where(is_possible, log_choose(m, x) + log_choose(n - m, k - x) + x * log_ratio, -np.inf)
    logs = logs - logs.max(axis=1, keepdims=True)
    normalised: Floats = logs - np.log(np.exp(logs).sum(axis=1, keepdims=True))
    return normalised


def capped_log_factors(votes: Ints, ups: Ints, canary: Ints, null: float, alternative: float) -> Floats:
    """Return what each number of canary ups adds to the log evidence: log min(2.9, c * likelihood ratio).

    c >= 1 gives back what the cap takes: the factor's mean under the null is 1.
    """
    under_null = log_hypergeometric(votes, ups, canary, null)
    ratio = np.zeros_like(under_null)
    np.subtract(
        log_hypergeometric(votes, ups, canary, alternative), under_null, out=ratio, where=np.isfinite(under_null)
    )
    chances = np.exp(under_null)
    low, high = np.zeros((len(votes), 1)), np.full((len(votes), 1), MAX_LOG_SCALE)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        mean = (chances * np.exp(np.minimum(ratio + middle, LOG_CAP))).sum(axis=1, keepdims=True)
        low, high = np.where(mean <= 1, middle, low), np.where(mean <= 1, high, middle)
    is_certain = (np.isfinite(under_null).sum(axis=1) == 1)[:, None]  # the totals leave one outcome: no evidence
    factors: Floats = np.where(is_certain, 0.0, np.minimum(ratio + low, LOG_CAP))
    return factors
