"""Slices: who is served worse, named only when it is sure."""

import numpy as np

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.comparisons import PairedBootstrap
from ratchet.evaluation.slices import SliceComparison, compare_slices, worst


def compare(candidate: list[bool], incumbent: list[bool], tenants: list[str]) -> list[SliceComparison]:
    by = PairedBootstrap(EvaluateAdapter(resamples=500), np.random.default_rng(0))
    groups = [str(number) for number in range(len(tenants))]
    margins = [np.where(right, 1.0, -1.0) for right in (candidate, incumbent)]
    slices = [{"tenant": tenant, "language": "en"} for tenant in tenants]
    return compare_slices(margins[0], margins[1], groups, slices, by)


def test_a_slice_that_is_worse_is_named_although_the_whole_is_better() -> None:
    tenants = ["acme"] * 60 + ["beta"] * 20
    slices = compare([True] * 60 + [False] * 20, [False] * 50 + [True] * 30, tenants)
    assert [(one.value, one.is_worse) for one in slices] == [("acme", False), ("beta", True)]
    (alarm,) = worst(slices, 0.05)
    assert alarm.p < 0.001
    assert "worse: tenant beta" in alarm.why


def test_a_slice_of_everything_is_no_slice() -> None:
    assert compare([True] * 20, [False] * 20, ["acme"] * 20) == []
    assert worst([], 0.05) == []


def test_a_slice_of_few_conversations_is_shown_but_not_judged() -> None:
    slices = compare([True] * 30 + [False] * 5, [True] * 35, ["acme"] * 30 + ["beta"] * 5)
    beta = slices[1]
    assert (beta.n, beta.difference, beta.p, beta.low, beta.is_worse) == (5, -1.0, None, None, False)
    assert "1 slices, worse: none" in worst(slices, 0.05)[0].why


def test_many_equal_slices_are_seldom_called_worse() -> None:
    rng = np.random.default_rng(4)
    named = 0
    for _ in range(200):
        tenants = [str(tenant) for tenant in rng.integers(8, size=160)]
        named += any(
            one.is_worse for one in compare((rng.random(160) < 0.6).tolist(), (rng.random(160) < 0.6).tolist(), tenants)
        )
    assert named / 200 <= 0.05 + 2 * (0.05 * 0.95 / 200) ** 0.5
