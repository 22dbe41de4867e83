"""Read pairs with several annotators, as in PandaLM's test set, to measure a judge without a lake."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, TypeAdapter, ValidationError

from ratchet.errors import UserError
from ratchet.evaluation.judge.calibration import Calibration, calibrate
from ratchet.evaluation.judge.pairwise import AnswerPair, PairOutcome

MARKS = {0: 0.5, 1: 1.0, 2: 0.0}  # the first answer's score by label
CONFIDENCE, RESAMPLES = 0.95, 2000
Label = Literal[0, 1, 2]
Text = Annotated[str, BeforeValidator(str)]  # a few of PandaLM's answers are bare JSON: true, 5


class AnnotatedPair(BaseModel):
    """One record of PandaLM's test set; further fields are ignored."""

    instruction: str
    input: str
    response1: Text
    response2: Text
    annotator1: Label
    annotator2: Label
    annotator3: Label


@dataclass(frozen=True)
class Panel:
    """Answer pairs, and the first answers' scores by annotator."""

    pairs: Sequence[AnswerPair]
    marks: dict[str, list[float]]


def read_panel(path: Path, limit: int) -> Panel:
    """Read the first `limit` pairs of a PandaLM test set. Raises UserError for any other file."""
    try:
        rows = TypeAdapter(list[AnnotatedPair]).validate_json(path.read_bytes())[:limit]
    except (OSError, ValidationError) as error:
        raise UserError(f"{path} is no PandaLM test set (a JSON array of judged pairs): {str(error)[:300]}") from None
    pairs = []
    for at, row in enumerate(rows):
        content = f"{row.instruction}\n\n{row.input}" if row.input else row.instruction
        pairs.append(AnswerPair([{"role": "user", "content": content}], row.response1, row.response2, str(at)))
    names = ("annotator1", "annotator2", "annotator3")
    return Panel(pairs, {name: [MARKS[getattr(row, name)] for row in rows] for name in names})


def measure(panel: Panel, outcomes: Sequence[PairOutcome], seed: int) -> dict[str, Calibration]:
    """Compare the judge with each annotator and their majority, and the annotators with each other."""
    against = {"judge, majority": (majority(panel), outcomes)}
    against |= {f"judge, {name}": (marks, outcomes) for name, marks in panel.marks.items()}
    for first, second in combinations(panel.marks, 2):
        against[f"{first}, {second}"] = (panel.marks[first], [PairOutcome(mark) for mark in panel.marks[second]])
    groups = [pair.group for pair in panel.pairs]
    return {
        names: calibrate(
            human, judged, groups, confidence=CONFIDENCE, resamples=RESAMPLES, rng=np.random.default_rng(seed)
        )
        for names, (human, judged) in against.items()
    }


def majority(panel: Panel) -> list[float]:
    """Return the score that two of three annotators gave; a tie if all differ."""
    votes = [Counter(row).most_common(1)[0] for row in zip(*panel.marks.values(), strict=True)]
    return [mark if num > 1 else 0.5 for mark, num in votes]
