"""One canary as an experiment: the adapters that are compared, the error rate, and the route's weights over time."""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal

from ratchet.adapter_ref import AdapterDigest

Arm = Literal["primary", "canary"]
ARMS: tuple[Arm, ...] = ("primary", "canary")
Place = tuple[float, str]
"""Of an answer in the order in which they were served: when (Unix seconds), and its id."""


@dataclass(frozen=True, kw_only=True)
class WeightSpan:
    """The route sent `weight` percent to the canary from `start` to `end`, both seen to be so (Unix seconds)."""

    start: float
    end: float
    weight: int


@dataclass(frozen=True, kw_only=True)
class CanaryDesign:
    """One canary: the adapters that are compared, the error rate, and the route's weights over time."""

    candidate: AdapterDigest
    baseline: AdapterDigest
    attempt: int
    alpha: float
    margin: float
    reference_approval: float = 0.8
    """Approval at which the margin, in points, is turned into an odds ratio."""
    duel_margin: float = 0.05
    """How far below one half the mean score of duels may be."""
    trusted_tenants: frozenset[str] = frozenset({"default"})
    """Tenants whose votes may decide alone."""
    harm_horizon_s: float = 0.0
    """Seconds from an answer to the last vote on it that counts in the test for harm."""
    promotion_horizon_s: float = 0.0
    spans: tuple[WeightSpan, ...]
    """In order; the first one's start is the run's."""

    @property
    def start(self) -> float:
        return self.spans[0].start

    def arm_of(self, digest: AdapterDigest) -> Arm | None:
        return "canary" if digest == self.candidate else "primary" if digest == self.baseline else None

    def span_of(self, start: float, end: float) -> int | None:
        """Return the number of the span that an answer began and ended in; None if the weight changed meanwhile."""
        i = bisect_right(self.spans, start, key=lambda span: span.start) - 1
        return i if i >= 0 and end <= self.spans[i].end else None


def alpha_of_attempt(alpha: float, attempt: int) -> float:
    """Return the share of `alpha` that attempt 1, 2, … of one comparison may spend; all shares sum to `alpha`."""
    return 6 * alpha / (math.pi * attempt) ** 2
