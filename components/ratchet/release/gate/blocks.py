"""Group one canary's votes into blocks, and feed them to the two e-processes.

A block holds as many votes of each arm as the route's weight makes likely; its shape is fixed before a vote of it is
looked at. Votes fill blocks first in, first out.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ratchet.adapter_ref import AdapterDigest
from ratchet.release.gate.eprocess import Block, EProcess, alpha_of_attempt, harm_process, non_inferiority_process

Arm = Literal["primary", "canary"]
ARMS: tuple[Arm, ...] = ("primary", "canary")


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
    max_tenant_share: float = 0.5
    spans: tuple[WeightSpan, ...]
    """In order; the first one's start is the run's."""

    @property
    def start(self) -> float:
        return self.spans[0].start

    @property
    def bound(self) -> float:
        """Log evidence at which a test has decided."""
        return math.log(1 / alpha_of_attempt(self.alpha, self.attempt))

    def arm_of(self, digest: AdapterDigest) -> Arm | None:
        return "canary" if digest == self.candidate else "primary" if digest == self.baseline else None

    def weight_at(self, t: float) -> int:
        return self.spans[max(0, bisect_right(self.spans, t, key=lambda span: span.start) - 1)].weight


@dataclass(frozen=True)
class Tally:
    n: int = 0
    up: int = 0


Votes = dict[Arm, Tally]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The evidence once a block was complete; `t` in seconds since the run's start."""

    t: float
    votes: Votes
    harm: float
    non_inferiority: float
    weight: int


@dataclass(frozen=True)
class CountedVote:
    """A vote that counts: its time (Unix seconds), the arm that answered, its direction, and the tenant."""

    at: float
    arm: Arm
    is_up: bool
    tenant: str = "default"


@dataclass(frozen=True)
class TestResults:
    """The tallies and both e-processes after the votes of a run."""

    votes: Votes
    harm: EProcess
    non_inferiority: EProcess
    history: tuple[Point, ...]


def run_tests(run: CanaryDesign, cast: Iterable[CountedVote]) -> TestResults:
    """Return both tests after the votes, in the order given."""
    harm, non_inferiority = harm_process(), non_inferiority_process(run.margin)
    counts: dict[Arm, list[int]] = {arm: [0, 0] for arm in ARMS}
    waiting: dict[Arm, deque[bool]] = {arm: deque() for arm in ARMS}
    first_step = next((span.weight for span in run.spans if span.weight > 0), 0)
    shape = block_shape(first_step)
    history = []
    for vote in cast:
        counts[vote.arm][0] += 1
        counts[vote.arm][1] += vote.is_up
        waiting[vote.arm].append(vote.is_up)
        while all(len(waiting[arm]) >= num for arm, num in zip(ARMS, shape, strict=True)):
            up_a, up_b = (sum(waiting[arm].popleft() for _ in range(num)) for arm, num in zip(ARMS, shape, strict=True))
            block = Block(num_a=shape[0], up_a=up_a, num_b=shape[1], up_b=up_b)
            harm, non_inferiority = harm.after(block), non_inferiority.after(block)
            weight = run.weight_at(vote.at)
            shape = block_shape(weight or first_step)  # the next block's, fixed before a vote of it is looked at
            t = round(vote.at - run.start, 3)
            votes = _tallies(counts)
            history.append(
                Point(t=t, votes=votes, harm=harm.log_e_max, non_inferiority=non_inferiority.log_e_max, weight=weight)
            )
    return TestResults(votes=_tallies(counts), harm=harm, non_inferiority=non_inferiority, history=tuple(history))


def _tallies(counts: dict[Arm, list[int]]) -> Votes:
    return {arm: Tally(n, up) for arm, (n, up) in counts.items()}


def block_shape(weight: int) -> tuple[int, int]:
    """Votes of primary and canary in a block: the traffic's ratio, with 1 for the smaller. (4, 1) at 20 percent."""
    if weight <= 0 or weight >= 100:  # one arm gets nothing, so no block can fill; any shape will do
        return 1, 1
    other = 100 - weight
    return (round(other / weight), 1) if weight <= other else (1, round(weight / other))
