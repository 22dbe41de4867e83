"""Compare preference accuracy by tenant, language and length: an average can hide a group that is served worse.

A slice is worse if McNemar's exact test on its conversations says so, Bonferroni-corrected over all slices, and it
lost more than `max_slice_drop`. The check `slices` is an alarm on the worst slice.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratchet.evaluation.comparisons import MIN_GROUPS, Comparison, PairedBootstrap, lost_and_won
from ratchet.evaluation.statistics import Floats, mcnemar_p


@dataclass(frozen=True, kw_only=True)
class SliceComparison:
    """Accuracy on the pairs of one slice, such as `language` `en`.

    `p` is the corrected p-value of "worse than the incumbent". It and the bounds are None with too few conversations.
    """

    kind: str
    value: str
    n: int
    candidate: float
    incumbent: float
    difference: float
    low: float | None = None
    high: float | None = None
    p: float | None = None
    is_worse: bool = False


def compare_slices(
    candidate: Floats,
    incumbent: Floats,
    groups: Sequence[str],
    slices: Sequence[Mapping[str, str]],
    by: PairedBootstrap,
) -> list[SliceComparison]:
    """Compare every slice that is not the whole, by kind and value. `slices`: each pair's slices, kind to value."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, pair_slices in enumerate(slices):
        for name in pair_slices.items():
            members[name].append(number)
    parts = {name: np.array(rows) for name, rows in sorted(members.items()) if len(rows) < len(groups)}
    group_of = np.asarray(groups, dtype=str)
    num_tested = sum(len(np.unique(group_of[rows])) >= MIN_GROUPS for rows in parts.values())
    return [
        _compare_slice(kind, value, candidate[rows] > 0, incumbent[rows] > 0, group_of[rows].tolist(), num_tested, by)
        for (kind, value), rows in parts.items()
    ]


def worst(slices: Sequence[SliceComparison], max_drop: float) -> list[Comparison]:
    """Return the alarm on the slice that is likeliest worse; empty if no slice has enough conversations."""
    tested = [part for part in slices if part.p is not None]
    if not tested:
        return []
    at = min(tested, key=lambda part: (not part.is_worse, part.p, part.difference))
    names = [f"{part.kind} {part.value}" for part in tested if part.is_worse]
    why = f"{len(tested)} slices, worse: {', '.join(names) or 'none'}; most doubtful {at.kind} {at.value}"
    return [
        Comparison(
            name="slices",
            candidate=at.candidate,
            incumbent=at.incumbent,
            difference=at.difference,
            low=at.low,
            high=at.high,
            threshold=-max_drop,
            n=at.n,
            p=at.p if at.is_worse and at.p is not None else 1.0,
            is_alarm=True,
            why=why,
        )
    ]


def _compare_slice(
    kind: str, value: str, right: Floats, was_right: Floats, groups: list[str], num_tested: int, by: PairedBootstrap
) -> SliceComparison:
    now, before = float(right.mean()), float(was_right.mean())
    comparison = SliceComparison(
        kind=kind, value=value, n=len(groups), candidate=now, incumbent=before, difference=now - before
    )
    if len(set(groups)) < MIN_GROUPS:
        return comparison
    change, alpha = right.astype(float) - was_right, 1 - by.settings.confidence
    drawn = by.resample(change, np.ones(len(change)), groups, has_prior=True)
    low, high = drawn.interval(1 - alpha / num_tested)
    p = min(1.0, mcnemar_p(*lost_and_won(change, groups)) * num_tested)
    is_worse = p <= alpha and now - before < -by.settings.max_slice_drop
    return replace(comparison, low=low, high=high, p=p, is_worse=is_worse)
