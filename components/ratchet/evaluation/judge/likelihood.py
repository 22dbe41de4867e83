"""A judge without a network: the base model, which answers with a letter that is read by likelihood.

It is weak: a small model follows the position more than the text. So it only informs.
"""

from collections.abc import Sequence

from ratchet.evaluation.judge.prompts import PairVerdict, Question
from ratchet.evaluation.scoring import Advance, Models, encode, log_probs

ASKED = "Reply with one letter: A if the first answer is better, B if the second is."


def ask_base(questions: Sequence[Question], models: Models, max_tokens: int, advance: Advance) -> list[PairVerdict]:
    """Return the answer whose letter the base model finds likelier; `too_long` for a question over `max_tokens`."""
    rows = [
        encode(
            models.tokenizer,
            [{"role": "user", "content": f"{question.conversation}\n\n{question.answers} {ASKED}"}],
            {"A": False, "B": False},
        )
        for question in questions
    ]
    short = [number for number, row in enumerate(rows) if row.num_distinct <= max_tokens]
    advance(len(rows) - len(short))
    verdicts: list[PairVerdict] = ["too_long" for _ in rows]
    for number, (a, b) in zip(short, log_probs(models, None, [rows[number] for number in short], advance), strict=True):
        verdicts[number] = "first" if a > b else "second" if b > a else "tie"
    return verdicts
