import polars as pl
import pytest

from ratchet.datasets.frozen_split import NOTHING, before
from ratchet.errors import UserError


def sides(**is_eval: bool) -> pl.DataFrame:
    names = [int(name[1:]) for name in is_eval]
    return pl.DataFrame(
        {"conversation": names, "is_eval": list(is_eval.values())},
        schema={"conversation": pl.UInt64, "is_eval": pl.Boolean},
    )


def test_first_build_starts_from_nothing(lake):
    start = before(lake, "s", "one")
    assert (start.files, start.digest) == ((), NOTHING)
    assert start.read(lake).is_empty()


def test_later_build_starts_from_what_was_frozen(lake):
    before(lake, "s", "one").freeze(lake, sides(c1=True, c2=False))
    before(lake, "s", "two").freeze(lake, sides(c1=True, c2=True, c3=False))
    third = before(lake, "s", "three")
    assert third.read(lake).sort("conversation", "is_eval").rows() == [(1, True), (2, False), (2, True), (3, False)]
    assert before(lake, "another", "three").files == ()


def test_build_that_is_run_again_starts_where_it_started_the_first_time(lake):
    first = before(lake, "s", "one")
    first.freeze(lake, sides(c1=True))
    second = before(lake, "s", "two")
    second.freeze(lake, sides(c2=True))
    assert before(lake, "s", "one") == first
    assert before(lake, "s", "two") == second
    before(lake, "s", "two").freeze(lake, sides(c2=True))
    assert len(before(lake, "s", "three").files) == 2


def test_of_two_builds_at_once_the_slower_is_told_to_run_again(lake):
    one, other = before(lake, "s", "one"), before(lake, "s", "other")
    one.freeze(lake, sides(c1=True))
    with pytest.raises(UserError, match="run this one again"):
        other.freeze(lake, sides(c1=False))
    assert before(lake, "s", "other").digest != other.digest
