import polars as pl
import pytest

from ratchet.datasets.weights import agreement, is_unsure, opposed_flip, recency, smoothed


def value(expression: pl.Expr) -> float:
    return pl.select(expression).item()


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1.0), (0.5, 0.0), (0.75, 0.5), (1.0, 1.0)])
def test_agreement_is_full_when_all_votes_are_on_one_side(share: float, expected: float):
    assert value(agreement(pl.lit(share))) == expected


def test_smoothing_is_jeffreys_posterior_mean():
    assert value(smoothed(pl.lit(1), pl.lit(1))) == 0.75
    assert value(smoothed(pl.lit(0), pl.lit(3))) == 0.125


@pytest.mark.parametrize(
    ("share", "expected"), [(1 / 3, False), (0.36, True), (0.5, True), (0.64, True), (2 / 3, False)]
)
def test_two_to_one_is_sure_enough(share: float, expected: bool):
    assert value(is_unsure(pl.lit(share))) is expected


def test_opposed_votes_are_wrong_only_if_both_are():
    assert value(opposed_flip(pl.lit(0.75), pl.lit(0.25))) == pytest.approx(0.1)
    assert value(opposed_flip(pl.lit(0.5), pl.lit(0.5))) == 0.5


def test_weight_halves_each_half_life():
    assert value(recency(pl.lit(0.0), 180 * 86_400, 90)) == pytest.approx(0.25)
