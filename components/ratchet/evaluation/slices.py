"""Preference accuracy by tenant, language and length: an average may hide that somebody is served worse.

A slice is worse if McNemar's exact test on its conversations says so, Bonferroni-corrected over all slices, and it
lost more than `max_slice_drop`. The check `slices` is an alarm on the worst of them.
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

    `p` is the corrected p-value of "worse than the incumbent"; None, as are the bounds, where there are too few
    conversations to say.
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
    """Every slice that is not the whole, by kind and value. `slices`: those each pair is in, as kind to value."""
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    for number, named in enumerate(slices):
        for name in named.items():
            members[name].append(number)
    parts = {name: np.array(rows) for name, rows in sorted(members.items()) if len(rows) < len(groups)}
    group_of = np.asarray(groups, dtype=str)
    num_judged = sum(len(np.unique(group_of[rows])) >= MIN_GROUPS for rows in parts.values())
    return [
        _compare_slice(kind, value, candidate[rows] > 0, incumbent[rows] > 0, group_of[rows].tolist(), num_judged, by)
        for (kind, value), rows in parts.items()
    ]


def worst(slices: Sequence[SliceComparison], max_drop: float) -> list[Comparison]:
    """The alarm, on the slice that is likeliest worse; empty if no slice has enough conversations."""
    judged = [one for one in slices if one.p is not None]
    if not judged:
        return []
    at = min(judged, key=lambda one: (not one.is_worse, one.p, one.difference))
    names = [f"{one.kind} {one.value}" for one in judged if one.is_worse]
    why = f"{len(judged)} slices, worse: {', '.join(names) or 'none'}; least sure of {at.kind} {at.value}"
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
    kind: str, value: str, right: Floats, was_right: Floats, groups: list[str], num_judged: int, by: PairedBootstrap
) -> SliceComparison:
    now, before = float(right.mean()), float(was_right.mean())
    found = SliceComparison(
        kind=kind, value=value, n=len(groups), candidate=now, incumbent=before, difference=now - before
    )
    if len(set(groups)) < MIN_GROUPS:
        return found
    change, alpha = right.astype(float) - was_right, 1 - by.settings.confidence
    drawn = by.resample(change, np.ones(len(change)), groups, has_prior=True)
    low, high = drawn.interval(1 - alpha / num_judged)
    p = min(1.0, mcnemar_p(*lost_and_won(change, groups)) * num_judged)
    is_worse = p <= alpha and now - before < -by.settings.max_slice_drop
    return replace(found, low=low, high=high, p=p, is_worse=is_worse)
