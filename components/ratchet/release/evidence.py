"""From served answers and votes to evidence about a canary: a pure function, so that recomputing gives the same.

The unit is the first explicit vote of each person in a run. Its arm is the adapter digest that served the answer,
whatever the voter or the route says. Votes fill blocks first in, first out, and the blocks feed two e-processes:
harm (the candidate is worse) and no_worse (it is not worse by the margin). Request counts against the route's weight
are a third, guarding the experiment itself: traffic that does not arrive as sent makes votes incomparable.
"""

import math
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ratchet.events import Feedback, Interaction
from ratchet.release.eprocess import Block, EProcess, alpha_of_attempt, harm_process, no_worse_process

Arm = Literal["primary", "canary"]
Decision = Literal["fail", "pass", "undecided"]
ARMS: tuple[Arm, ...] = ("primary", "canary")
EXCLUDED = ("interaction_unknown", "served_outside_run", "other_adapter", "repeat_vote")
LOWEST_UP, HIGHEST_DOWN = 4, 2  # ratings of 4 and 5 are up, 1 and 2 down; 3 says nothing
SPLIT_ALPHA = 0.001  # a false alarm stops a good release, so as rare as in common sample-ratio checks


@dataclass(frozen=True, kw_only=True)
class Served:
    """One answer, as far as it counts here."""

    interaction_id: str
    digest: str
    served_at: float
    latency_s: float = 0.0

    @classmethod
    def of(cls, event: Interaction) -> "Served":
        return cls(
            interaction_id=event.interaction_id,
            digest=event.adapter_digest,
            served_at=event.served_at,
            latency_s=event.latency_ms / 1000,
        )


@dataclass(frozen=True, kw_only=True)
class Vote:
    """One explicit human judgement, up or down."""

    feedback_id: str
    interaction_id: str
    subject_id: str
    is_up: bool
    created_at: float

    @classmethod
    def of(cls, event: Feedback) -> "Vote | None":
        """None where the feedback is no vote: another kind, a rating of 3, or not from a person."""
        is_up = _is_up(event)
        if is_up is None:
            return None
        return cls(
            feedback_id=event.feedback_id,
            interaction_id=event.interaction_id,
            subject_id=event.subject_id,
            is_up=is_up,
            created_at=event.created_at,
        )


@dataclass(frozen=True, kw_only=True)
class WeightSpan:
    """The route sent `weight` percent to the canary from `start` to `end`, both seen to be so (Unix seconds)."""

    start: float
    end: float
    weight: int


@dataclass(frozen=True, kw_only=True)
class Run:
    """One canary: what is compared, and what the route did meanwhile."""

    candidate: str
    baseline: str
    attempt: int
    alpha: float
    margin: float
    spans: tuple[WeightSpan, ...]
    """In order; the first one's start is the run's."""

    @property
    def start(self) -> float:
        return self.spans[0].start

    @property
    def bound(self) -> float:
        """The log evidence at which a test has decided."""
        return math.log(1 / alpha_of_attempt(self.alpha, self.attempt))

    def arm_of(self, digest: str) -> Arm | None:
        return "canary" if digest == self.candidate else "primary" if digest == self.baseline else None

    def weight_at(self, t: float) -> int:
        return self.spans[max(0, bisect_right(self.spans, t, key=lambda span: span.start) - 1)].weight


@dataclass(frozen=True)
class Tally:
    n: int = 0
    up: int = 0

    def plus(self, is_up: bool) -> "Tally":
        return Tally(self.n + 1, self.up + is_up)


Votes = dict[Arm, Tally]


@dataclass(frozen=True, kw_only=True)
class Point:
    """The evidence once a block was complete; `t` in seconds since the run's start."""

    t: float
    votes: Votes
    harm: float
    no_worse: float
    weight: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the votes say. `harm`, `no_worse`: running maxima of log E; a test has decided at `bound`."""

    votes: Votes
    harm: float
    no_worse: float
    split: float
    bound: float
    decision: Decision
    why: str
    history: tuple[Point, ...] = ()
    excluded: dict[str, int] = field(default_factory=dict)

    @property
    def is_split_alarming(self) -> bool:
        return self.split >= math.log(1 / SPLIT_ALPHA)


def weigh(run: Run, served: Iterable[Served], votes: Iterable[Vote]) -> Evidence:
    """The evidence on `run` in these events, whatever their order."""
    answers = {answer.interaction_id: answer for answer in sorted(served, key=lambda a: (-a.served_at, a.digest))}
    counted, excluded = _first_votes(run, answers, votes)
    tallies, harm, no_worse, history = _test(run, counted)
    split = _split_log_e(run, answers.values())
    decision, why = _decide(run, harm.log_e_max, no_worse.log_e_max, split, tallies)
    return Evidence(
        votes=tallies,
        harm=harm.log_e_max,
        no_worse=no_worse.log_e_max,
        split=split,
        bound=run.bound,
        decision=decision,
        why=why,
        history=tuple(history),
        excluded=excluded,
    )


def block_shape(weight: int) -> tuple[int, int]:
    """Votes of primary and canary in a block: the traffic's ratio, with 1 for the smaller. (4, 1) at 20 percent."""
    if weight <= 0 or weight >= 100:  # one arm gets nothing, so no block can fill; any shape will do
        return 1, 1
    other = 100 - weight
    return (round(other / weight), 1) if weight <= other else (1, round(weight / other))


def _first_votes(
    run: Run, answers: dict[str, Served], votes: Iterable[Vote]
) -> tuple[list[tuple[Arm, Vote]], dict[str, int]]:
    counted: dict[str, tuple[Arm, Vote]] = {}
    excluded = Counter(dict.fromkeys(EXCLUDED, 0))
    unique = {vote.feedback_id: vote for vote in votes}.values()
    for vote in sorted(unique, key=lambda vote: (vote.created_at, vote.feedback_id)):
        answer = answers.get(vote.interaction_id)
        if answer is None:
            excluded["interaction_unknown"] += 1
        elif answer.served_at < run.start:
            excluded["served_outside_run"] += 1
        elif (arm := run.arm_of(answer.digest)) is None:
            excluded["other_adapter"] += 1
        elif vote.subject_id in counted:
            excluded["repeat_vote"] += 1
        else:
            counted[vote.subject_id] = (arm, vote)
    return list(counted.values()), dict(excluded)


def _test(run: Run, counted: Sequence[tuple[Arm, Vote]]) -> tuple[Votes, EProcess, EProcess, list[Point]]:
    harm, no_worse = harm_process(), no_worse_process(run.margin)
    tallies: Votes = dict.fromkeys(ARMS, Tally())
    waiting: dict[Arm, deque[bool]] = {arm: deque() for arm in ARMS}
    first_step = next((span.weight for span in run.spans if span.weight > 0), 0)
    shape = block_shape(first_step)
    history = []
    for arm, vote in counted:
        tallies = {**tallies, arm: tallies[arm].plus(vote.is_up)}
        waiting[arm].append(vote.is_up)
        while block := _filled(waiting, shape):
            harm, no_worse = harm.after(block), no_worse.after(block)
            weight = run.weight_at(vote.created_at)
            shape = block_shape(weight or first_step)  # the next block's, fixed before a vote of it is looked at
            t = round(vote.created_at - run.start, 3)
            history.append(Point(t=t, votes=tallies, harm=harm.log_e_max, no_worse=no_worse.log_e_max, weight=weight))
    return tallies, harm, no_worse, history


def _filled(waiting: dict[Arm, deque[bool]], shape: tuple[int, int]) -> Block | None:
    """Take the next block out of the queues, once both hold enough."""
    if any(len(waiting[arm]) < num for arm, num in zip(ARMS, shape, strict=True)):
        return None
    up_a, up_b = (sum(waiting[arm].popleft() for _ in range(num)) for arm, num in zip(ARMS, shape, strict=True))
    return Block(num_a=shape[0], up_a=up_a, num_b=shape[1], up_b=up_b)


def _split_log_e(run: Run, answers: Iterable[Served]) -> float:
    """Log evidence that requests did not arrive at the arms as the route's weights say.

    A Beta(1, 1) mixture against the weight, multiplied over spans of constant weight. Only answers that began and
    ended within a span count, so that a request sent under one weight is not held against the next.
    """
    counts = [Counter[Arm]() for _ in run.spans]
    for answer in answers:
        arm = run.arm_of(answer.digest)
        i = bisect_right(run.spans, answer.served_at - answer.latency_s, key=lambda span: span.start) - 1
        if arm is not None and i >= 0 and answer.served_at + answer.latency_s <= run.spans[i].end:
            counts[i][arm] += 1
    return sum(
        _log_beta(1 + count["canary"], 1 + count["primary"])
        - count["canary"] * math.log(span.weight / 100)
        - count["primary"] * math.log(1 - span.weight / 100)
        for span, count in zip(run.spans, counts, strict=True)
        if 0 < span.weight < 100
    )


def _decide(run: Run, harm: float, no_worse: float, split: float, votes: Votes) -> tuple[Decision, str]:
    said = ", ".join(f"{arm} {votes[arm].up} of {votes[arm].n} up" for arm in ARMS)
    if harm >= run.bound:
        return "fail", f"users like the candidate less: {said}; log E(harm) {harm:.1f} of {run.bound:.1f}"
    if split >= math.log(1 / SPLIT_ALPHA):
        return "undecided", f"requests do not arrive as the route sends them (log E {split:.1f}); {said}"
    if no_worse >= run.bound:
        return "pass", f"users like the candidate no less: {said}; log E(no worse) {no_worse:.1f} of {run.bound:.1f}"
    return "undecided", f"{said}; log E of {run.bound:.1f}: harm {harm:.1f}, no worse {no_worse:.1f}"


def _is_up(event: Feedback) -> bool | None:
    if event.source != "human" or not isinstance(event.value, float):
        return None
    if event.kind == "thumb" and event.value in (1, -1):
        return event.value == 1
    if event.kind == "rating" and (event.value >= LOWEST_UP or event.value <= HIGHEST_DOWN):
        return event.value >= LOWEST_UP
    return None


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
