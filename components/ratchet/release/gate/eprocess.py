"""A two-sample test of votes that stays valid however often it is looked at.

The block e-process of Turner, Ly and Grünwald (arXiv 2106.02693). Votes arrive in blocks of `num_a` from the
baseline A and `num_b` from the candidate B. For each alternative of a grid, a block multiplies the evidence by the
likelihood ratio of that alternative against its reverse information projection on the null; by the weighted AM-GM
inequality the factor's mean is at most 1 at every point of the (convex) null. So E is an e-process, and by Ville's
inequality the chance that it ever reaches 1/alpha under the null is at most alpha. Blocks compare concurrent votes,
so a drift that both arms share, and traffic ramps, do not break it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

PRIOR_UP, PRIOR_VOTES = 4, 5  # approval before any vote: 4 of 5, about what assistants see; costs power only
CLIP = 0.005  # rates stay this far from 0 and 1, where one surprising vote would be infinite evidence
# Drops in approval, each with its share of the evidence: most of it on the ten points that are to be caught within 150
# canary votes, the rest on disasters. More drops find none of any size sooner (`ratchet simulate-gate`).
HARM_GRID = {-0.10: 3 / 4, -0.25: 1 / 4}
# Near -margin finds the small effects; the large ones decide early for a candidate that is much better.
IMPROVEMENT_GRID = (0.0, 0.03, 0.10, 0.20, 0.35)
BISECTIONS = 60  # halvings of an interval no longer than 1: to float precision
VoteLogs = tuple[float, float, float, float]  # of one vote: up in A, down in A, up in B, down in B
NO_LOGS: VoteLogs = (0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Block:
    """Votes of both arms: `num_*` votes, of which `up_*` are up."""

    num_a: int
    up_a: int
    num_b: int
    up_b: int


@dataclass(frozen=True, kw_only=True)
class EProcess:
    """Evidence against the null after the blocks so far. `after(block)` returns the next state."""

    margin: float
    """The null's boundary is thetaB = thetaA - margin."""
    is_harm: bool
    """Null thetaB >= thetaA - margin (rejected: B is worse); otherwise thetaB <= thetaA - margin (B is no worse)."""
    grid: tuple[float, ...]
    """Alternatives, as differences thetaB - thetaA."""
    log_factors: tuple[float, ...]
    """Log evidence of each alternative, its share of the whole included."""
    ups_a: int = 0
    votes_a: int = 0
    log_e_max: float = 0.0
    """Running maximum of `log_e`: reject the null once it reaches log(1/alpha)."""

    @property
    def log_e(self) -> float:
        """Log of the evidence, all alternatives together."""
        largest = max(self.log_factors)
        return largest + math.log(sum(math.exp(x - largest) for x in self.log_factors))

    def after(self, block: Block) -> Self:
        logs = tuple(
            log
            + block.up_a * up_a
            + (block.num_a - block.up_a) * down_a
            + block.up_b * up_b
            + (block.num_b - block.up_b) * down_b
            for log, (up_a, down_a, up_b, down_b) in zip(
                self.log_factors,
                self.vote_logs(self.ups_a, self.votes_a, block.num_a, block.num_b),
                strict=True,
            )
        )
        moved = replace(self, log_factors=logs, ups_a=self.ups_a + block.up_a, votes_a=self.votes_a + block.num_a)
        return replace(moved, log_e_max=max(self.log_e_max, moved.log_e))

    def vote_logs(self, ups_a: int, votes_a: int, num_a: int, num_b: int) -> tuple[VoteLogs, ...]:
        """Return what each vote of the next block adds to each alternative's log evidence, given A's votes so far."""
        rate_a = _clip((PRIOR_UP + ups_a) / (PRIOR_VOTES + votes_a))  # from past blocks only
        return tuple(self._vote_logs(rate_a, _clip(rate_a + difference), num_a, num_b) for difference in self.grid)

    def _vote_logs(self, rate_a: float, rate_b: float, num_a: int, num_b: int) -> VoteLogs:
        gap = rate_b - (rate_a - self.margin)
        if (gap >= 0) if self.is_harm else (gap <= 0):
            return NO_LOGS  # clipping moved this alternative into the null; it gets no evidence from this block
        null_a = reverse_projection(rate_a, rate_b, num_a, num_b, self.margin)
        return *_log_ratios(rate_a, null_a), *_log_ratios(rate_b, null_a - self.margin)


def harm_process() -> EProcess:
    """Return the test for harm: evidence that the candidate's approval is below the baseline's."""
    return _fresh(0.0, HARM_GRID, is_harm=True)


def non_inferiority_process(margin: float) -> EProcess:
    """Return the test for non-inferiority: evidence that approval is above the baseline's minus `margin`."""
    grid = (-margin / 2, *IMPROVEMENT_GRID)
    return _fresh(margin, dict.fromkeys(grid, 1 / len(grid)), is_harm=False)


def _fresh(margin: float, shares: Mapping[float, float], is_harm: bool) -> EProcess:
    logs = tuple(math.log(share) for share in shares.values())
    return EProcess(margin=margin, is_harm=is_harm, grid=tuple(shares), log_factors=logs)


def alpha_of_attempt(alpha: float, attempt: int) -> float:
    """Return the share of `alpha` that attempt 1, 2, … of one comparison may spend; all shares sum to `alpha`."""
    return 6 * alpha / (math.pi * attempt) ** 2


@lru_cache(maxsize=1 << 16)  # evidence is recomputed from all votes, so the same blocks come back
def reverse_projection(rate_a: float, rate_b: float, num_a: int, num_b: int, margin: float) -> float:
    """Return the t that minimises num_a KL(rate_a || t) + num_b KL(rate_b || t - margin): the null's nearest point.

    The sum is convex in t, and its slope changes sign between rate_a and rate_b + margin. Without a margin the nearest
    point is the mean of all votes.
    """
    if margin == 0:
        return (num_a * rate_a + num_b * rate_b) / (num_a + num_b)
    ends = (rate_a, rate_b + margin)
    low, high = max(min(ends), margin), min(max(ends), 1.0)
    for _ in range(BISECTIONS):
        t = (low + high) / 2
        s = t - margin
        if num_a * (t - rate_a) * s * (1 - s) + num_b * (s - rate_b) * t * (1 - t) > 0:
            high = t
        else:
            low = t
    return (low + high) / 2


def _log_ratios(rate: float, null_rate: float) -> tuple[float, float]:
    return math.log(rate / null_rate), math.log((1 - rate) / (1 - null_rate))


def _clip(rate: float) -> float:
    return min(max(rate, CLIP), 1 - CLIP)
