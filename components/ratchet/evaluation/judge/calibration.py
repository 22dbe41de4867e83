"""How far a judge agrees with people, before its word counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.digest import digest_json
from ratchet.evaluation.judge.pairwise import AnswerPair, PairOutcome
from ratchet.evaluation.statistics import Floats

LABELS = (1.0, 0.5, 0.0)  # the first answer is better, neither is, the second is


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """`kappa` with its one-sided lower bound; `flip_rate`: how often turning the order turned the verdict round.

    `confusion`: rows are what people said (first, tie, second), columns what the judge said.
    """

    n: int
    agreement: float
    kappa: float
    kappa_low: float
    flip_rate: float
    confusion: list[list[int]]


def labelled(pairs: Sequence[AnswerPair]) -> tuple[list[AnswerPair], list[float]]:
    """Pairs of a chosen (`ours`) and a rejected answer, reordered so that the better one stands on either side.

    The side is a coin that the texts' digest tosses: fixed, and nothing that a judge could know.
    """
    turned, labels = [], []
    for one in pairs:
        texts = sorted([one.ours, one.theirs])
        if int(digest_json(texts), 16) % 2:
            texts.reverse()
        turned.append(AnswerPair(one.messages, texts[0], texts[1], one.group))
        labels.append(1.0 if texts[0] == one.ours else 0.0)
    return turned, labels


def calibrate(
    human: Sequence[float],
    found: Sequence[PairOutcome],
    groups: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> Calibration:
    """Judge against people, on the pairs that were judged. `human`: scores like an outcome's."""
    place = {name: number for number, name in enumerate(sorted(set(groups)))}
    tables = np.zeros((len(place), len(LABELS) ** 2))
    for label, outcome, group in zip(human, found, groups, strict=True):
        if outcome.score is not None:
            tables[place[group], len(LABELS) * LABELS.index(label) + LABELS.index(outcome.score)] += 1
    table = tables.sum(axis=0, keepdims=True)
    judged = [one for one in found if one.score is not None]
    return Calibration(
        n=len(judged),
        agreement=float(np.trace(table.reshape(3, 3)) / max(1, len(judged))),
        kappa=float(cohen_kappa(table)[0]),
        kappa_low=float(np.quantile(cohen_kappa(_resampled(tables, resamples, rng)), 1 - confidence)),
        flip_rate=sum(one.is_flip for one in judged) / max(1, len(judged)),
        confusion=table.reshape(3, 3).astype(int).tolist(),
    )


def _resampled(tables: Floats, resamples: int, rng: np.random.Generator) -> Floats:
    """The sums of the tables under each draw of groups."""
    if not len(tables):
        return np.zeros((1, len(LABELS) ** 2))
    kinds, times = np.unique(tables, axis=0, return_counts=True)
    return rng.multinomial(len(tables), times / len(tables), size=resamples).astype(float) @ kinds


def cohen_kappa(tables: Floats) -> Floats:
    """Cohen's (1960) kappa of each flat 3 x 3 table: agreement beyond what the margins alone would give.

    0 where a table is empty or has but one label on both sides: nothing was shown.
    """
    squares = tables.reshape(-1, 3, 3)
    total = np.maximum(squares.sum(axis=(1, 2)), 1)
    seen = np.trace(squares, axis1=1, axis2=2) / total
    by_chance = (squares.sum(axis=1) * squares.sum(axis=2)).sum(axis=1) / total**2
    return np.where(by_chance < 1, (seen - by_chance) / np.maximum(1 - by_chance, 1e-12), 0.0)
