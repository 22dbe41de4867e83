"""Judge pairs of answers in both orders, against position bias: verdicts that contradict each other are a tie."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ratchet.evaluation.judge.prompts import PairVerdict, Question

HALF = {"first": 1.0, "second": 0.0, "tie": 0.5}


@dataclass(frozen=True)
class AnswerPair:
    """Two answers to a chat, ours and theirs. `group`: the split unit; errors within it are correlated."""

    messages: Sequence[Mapping[str, str]]
    ours: str
    theirs: str
    group: str


@dataclass(frozen=True)
class PairOutcome:
    """`score`: 1 if ours won, 0 if it lost, 0.5 for a tie, None without a verdict. `is_flip`: the orders contradict."""

    score: float | None
    is_flip: bool = False
    no_verdict_reason: PairVerdict | None = None


def questions(pairs: Sequence[AnswerPair]) -> list[Question]:
    """Return two questions for each pair, ours first and then theirs; none if the answers are equal."""
    return [
        Question(pair.messages, *order)
        for pair in pairs
        if pair.ours != pair.theirs
        for order in ((pair.ours, pair.theirs), (pair.theirs, pair.ours))
    ]


def outcomes(pairs: Sequence[AnswerPair], verdicts: Sequence[PairVerdict]) -> list[PairOutcome]:
    """Return the outcome of each pair, given the verdicts on `questions(pairs)`."""
    both_orders = iter(zip(verdicts[::2], verdicts[1::2], strict=True))
    return [PairOutcome(0.5) if pair.ours == pair.theirs else _outcome(*next(both_orders)) for pair in pairs]


def no_verdict_reasons(outcomes: Sequence[PairOutcome]) -> dict[str, int]:
    """Count the pairs without a verdict, by reason."""
    reasons = (outcome.no_verdict_reason for outcome in outcomes)
    return dict(sorted(Counter(reason for reason in reasons if reason is not None).items()))


def _outcome(straight: PairVerdict, turned: PairVerdict) -> PairOutcome:
    for verdict in (straight, turned):
        if verdict not in HALF:
            return PairOutcome(None, no_verdict_reason=verdict)
    ours = (HALF[straight], 1 - HALF[turned])
    if ours[0] == ours[1]:
        return PairOutcome(ours[0])
    return PairOutcome(0.5, is_flip=straight == turned)  # flip: the same position won twice; else one verdict was a tie
