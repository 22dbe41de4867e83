"""Pairs of answers, each judged in both orders: a verdict that turns with the order is a tie."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.evaluation.judge.prompts import PairVerdict, Question

HALF = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to a chat, ours and theirs. `group`: the split unit, whose pairs err together."""

    messages: Sequence[Mapping[str, str]]
    ours: str
    theirs: str
    group: str


@dataclass(frozen=True)
class PairOutcome:
    """`score`: 1 a win of ours, 0 a loss, one half a tie; None without a verdict. `is_flip`: the orders contradict."""

    score: float | None
    is_flip: bool = False
    no_verdict_reason: PairVerdict | None = None


def questions(pairs: Sequence[AnswerPair]) -> list[Question]:
    """Two for each pair, ours first and then theirs; none where the answers are the same."""
    return [
        Question(one.messages, *order)
        for one in pairs
        if one.ours != one.theirs
        for order in ((one.ours, one.theirs), (one.theirs, one.ours))
    ]


def outcomes(pairs: Sequence[AnswerPair], verdicts: Sequence[PairVerdict]) -> list[PairOutcome]:
    """The outcome of each pair, from the verdicts on `questions`."""
    both_orders = iter(zip(verdicts[::2], verdicts[1::2], strict=True))
    return [PairOutcome(0.5) if one.ours == one.theirs else _outcome(*next(both_orders)) for one in pairs]


def no_verdict_reasons(found: Sequence[PairOutcome]) -> dict[str, int]:
    """Number of pairs without a verdict, by reason."""
    return dict(sorted(Counter(one.no_verdict_reason for one in found if one.no_verdict_reason is not None).items()))


def _outcome(straight: PairVerdict, turned: PairVerdict) -> PairOutcome:
    for one in (straight, turned):
        if one not in HALF:
            return PairOutcome(None, no_verdict_reason=one)
    ours = (HALF[straight], 1 - HALF[turned])
    if ours[0] == ours[1]:
        return PairOutcome(ours[0])
    return PairOutcome(0.5, is_flip=straight == turned)  # the same place won twice; else one of the two was a tie
