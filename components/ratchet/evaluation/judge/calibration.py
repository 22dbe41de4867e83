"""Measure how far a judge agrees with people; its verdicts count only above a minimum agreement."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ratchet.digest import digest_json
from ratchet.evaluation.judge.pairwise import AnswerPair, PairOutcome
from ratchet.evaluation.statistics import Floats

LABELS = (1.0, 0.5, 0.0)  # the first answer is better, neither is, the second is


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A judge's agreement with people: Cohen's kappa with its one-sided lower bound.

    `flip_rate`: the share of pairs whose verdict reversed with the order. `confusion`: rows are people's labels (first,
    tie, second), columns the judge's.
    """

    n: int
    agreement: float
    kappa: float
    kappa_low: float
    flip_rate: float
    confusion: list[list[int]]


def labelled(pairs: Sequence[AnswerPair]) -> tuple[list[AnswerPair], list[float]]:
    """Reorder pairs of a chosen (`ours`) and a rejected answer at random; return them with the first answer's labels.

    The digest of the texts decides the order: reproducible, and unknown to a judge.
    """
    shuffled, labels = [], []
    for pair in pairs:
        texts = sorted([pair.ours, pair.theirs])
        if int(digest_json(texts), 16) % 2:
            texts.reverse()
        shuffled.append(AnswerPair(pair.messages, texts[0], texts[1], pair.group))
        labels.append(1.0 if texts[0] == pair.ours else 0.0)
    return shuffled, labels


def calibrate(
    human: Sequence[float],
    outcomes: Sequence[PairOutcome],
    groups: Sequence[str],
    *,
    confidence: float,
    resamples: int,
    rng: np.random.Generator,
) -> Calibration:
    """Compare a judge with people on the pairs that have a verdict. `human`: scores as in `PairOutcome`."""
    place = {name: number for number, name in enumerate(sorted(set(groups)))}
    tables = np.zeros((len(place), len(LABELS) ** 2))
    for label, outcome, group in zip(human, outcomes, groups, strict=True):
        if outcome.score is not None:
            tables[place[group], len(LABELS) * LABELS.index(label) + LABELS.index(outcome.score)] += 1
    table = tables.sum(axis=0, keepdims=True)
    judged = [outcome for outcome in outcomes if outcome.score is not None]
    resampled = np.zeros((1, len(LABELS) ** 2))
    if len(tables):  # the sums of the tables under each bootstrap draw of groups
        kinds, times = np.unique(tables, axis=0, return_counts=True)
        resampled = rng.multinomial(len(tables), times / len(tables), size=resamples).astype(float) @ kinds
    return Calibration(
        n=len(judged),
        agreement=float(np.trace(table.reshape(3, 3)) / max(1, len(judged))),
        kappa=float(cohen_kappa(table)[0]),
        kappa_low=float(np.quantile(cohen_kappa(resampled), 1 - confidence)),
        flip_rate=sum(outcome.is_flip for outcome in judged) / max(1, len(judged)),
        confusion=table.reshape(3, 3).astype(int).tolist(),
    )


def cohen_kappa(tables: Floats) -> Floats:
    """Return Cohen's (1960) kappa of each flat 3 x 3 table: agreement beyond chance, given the margins.

    0 for a table that is empty or has a single label on both sides, which shows nothing.
    """
    squares = tables.reshape(-1, 3, 3)
    total = np.maximum(squares.sum(axis=(1, 2)), 1)
    seen = np.trace(squares, axis1=1, axis2=2) / total
    by_chance = (squares.sum(axis=1) * squares.sum(axis=2)).sum(axis=1) / total**2
    return np.where(by_chance < 1, (seen - by_chance) / np.maximum(1 - by_chance, 1e-12), 0.0)
