"""Pairs of answers, each judged in both orders: a verdict that turns with the order is a tie."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.evaluation.judge.prompts import Heard, Question

HALF = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class Contest:
    """Two answers to a chat, ours and theirs. `group`: the split unit, whose contests err together."""

    messages: Sequence[Mapping[str, str]]
    ours: str
    theirs: str
    group: str


@dataclass(frozen=True)
class Outcome:
    """`marks`: 1 a win of ours, 0 a loss, one half a tie; None without a verdict. `is_flip`: the orders contradict."""

    marks: float | None
    is_flip: bool = False
    silence: Heard | None = None


def questions(contests: Sequence[Contest]) -> list[Question]:
    """Two for each contest, ours first and then theirs; none where the answers are the same."""
    return [
        Question(one.messages, *order)
        for one in contests
        if one.ours != one.theirs
        for order in ((one.ours, one.theirs), (one.theirs, one.ours))
    ]


def outcomes(contests: Sequence[Contest], heard: Sequence[Heard]) -> list[Outcome]:
    """How each contest ended, given what was heard to `questions`."""
    pairs = iter(zip(heard[::2], heard[1::2], strict=True))
    return [Outcome(0.5) if one.ours == one.theirs else _outcome(*next(pairs)) for one in contests]


def silences(found: Sequence[Outcome]) -> dict[str, int]:
    """Contests without a verdict, by reason."""
    return dict(sorted(Counter(one.silence for one in found if one.silence is not None).items()))


def _outcome(straight: Heard, turned: Heard) -> Outcome:
    for one in (straight, turned):
        if one not in HALF:
            return Outcome(None, silence=one)
    ours = (HALF[straight], 1 - HALF[turned])
    if ours[0] == ours[1]:
        return Outcome(ours[0])
    return Outcome(0.5, is_flip=straight == turned)  # the same place won twice; else one of the two was a tie
