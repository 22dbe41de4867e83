"""When a move counts as drift."""

import random
from collections import Counter

import pytest

from ratchet.monitoring.shift_statistics import share_change, stability_index


def test_equal_counts_have_an_index_of_nothing() -> None:
    shift = stability_index("kind", {"a": 500, "b": 500}, {"a": 500, "b": 500})
    assert shift.size == pytest.approx(0)
    assert shift.p == pytest.approx(1)


def test_the_index_is_the_textbook_number() -> None:
    shift = stability_index("kind", {"a": 5_000_000, "b": 5_000_000}, {"a": 7_000_000, "b": 3_000_000})
    assert shift.size == pytest.approx(0.2 * 0.3365 + 0.2 * 0.5108, abs=1e-3)


def test_a_large_index_of_a_tiny_sample_is_no_drift() -> None:
    shift = stability_index("kind", {"a": 3, "b": 2, "c": 1}, {"a": 1, "b": 2, "c": 3})
    assert shift.size > shift.limit
    assert not shift.is_drift(0.01)


def test_a_sure_but_small_change_is_no_drift() -> None:
    shift = share_change("approval", (50_000, 100_000), (52_000, 100_000))
    assert shift.p < 1e-6
    assert not shift.is_drift(0.01)


def test_a_large_and_sure_change_is_drift() -> None:
    assert share_change("approval", (600, 1000), (400, 1000)).is_drift(0.01)


def test_a_kind_that_appears_is_seen() -> None:
    assert stability_index("kind", {"thumb": 1000}, {"thumb": 500, "rating": 500}).is_drift(0.01)


def test_a_share_without_any_variation_has_not_changed() -> None:
    assert share_change("approval", (100, 100), (200, 200)).p == 1.0


def test_without_drift_the_stated_error_rate_holds() -> None:
    rng = random.Random(0)
    draws = [[Counter(rng.choices("abcde", k=150)) for _ in range(2)] for _ in range(800)]
    alarms = sum(stability_index("x", first, second).p <= 0.05 for first, second in draws)
    assert 0.02 < alarms / len(draws) < 0.08
