import math

import polars as pl
from hypothesis import assume, given
from hypothesis import strategies as st

from ratchet.lake.fingerprint import Fingerprint
from support.lake_tables import fingerprint_digest

SCHEMA = {"name": pl.String, "number": pl.Float64, "count": pl.Int64, "flag": pl.Boolean, "tags": pl.List(pl.String)}
# What could be taken for the marks between values, and texts that end where others begin.
TEXTS = st.text(alphabet="a1\x00\x1f\\", max_size=4)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "name": st.none() | TEXTS,
            "number": st.none() | st.floats(),
            "count": st.none() | st.integers(-(2**63), 2**63 - 1),
            "flag": st.none() | st.booleans(),
            "tags": st.none() | st.lists(TEXTS, max_size=2),
        }
    ),
    max_size=6,
)


def table(rows: list[dict]) -> pl.DataFrame:
    return pl.DataFrame(rows, SCHEMA, strict=False)


def as_set(rows: list[dict]) -> list[str]:
    def plain(value: object) -> object:
        if isinstance(value, float):
            return "nan" if math.isnan(value) else value + 0.0
        return value

    return sorted(repr([plain(row[name]) for name in SCHEMA]) for row in rows)


@given(rows=ROWS, order=st.randoms(use_true_random=False), cut=st.integers(0, 6))
def test_neither_order_nor_parts_matter(rows: list[dict], order, cut: int):
    shuffled = list(rows)
    order.shuffle(shuffled)
    parts = Fingerprint.of(table(shuffled[:cut])) + Fingerprint.of(table(shuffled[cut:]))
    assert parts == Fingerprint.of(table(rows))
    assert parts.digest() == fingerprint_digest(table(rows).select(*reversed(SCHEMA)))


@given(rows=ROWS, other=ROWS)
def test_other_rows_have_another_digest(rows: list[dict], other: list[dict]):
    assume(as_set(rows) != as_set(other))
    assert fingerprint_digest(table(rows)) != fingerprint_digest(table(other))


def test_values_do_not_run_into_each_other():
    texts = ["", "\x1f", "\x00", "1", "0\x1f1", "\x1f0"]
    rows = [{"left": left, "right": right} for left in [None, *texts] for right in [None, *texts]]
    assert len({fingerprint_digest(pl.DataFrame([row], {"left": str, "right": str})) for row in rows}) == len(rows)


def test_a_row_counts_as_often_as_it_is_there():
    row = {"name": "a"}
    assert fingerprint_digest(table([row])) != fingerprint_digest(table([row, row]))


def test_which_collection_brought_a_row_does_not_count():
    rows = table([{"name": "a"}, {"name": "b"}])
    digests = {fingerprint_digest(rows.with_columns(collection=number)) for number in (1, 2)}
    assert digests == {fingerprint_digest(rows)}


def test_a_column_without_values_does_not_count():
    rows = table([{"name": "a"}])
    assert fingerprint_digest(rows.with_columns(later=pl.lit(None, dtype=pl.String))) == fingerprint_digest(rows)


def test_column_names_count():
    assert fingerprint_digest(pl.DataFrame({"a": ["x"]})) != fingerprint_digest(pl.DataFrame({"b": ["x"]}))


def test_the_digest_of_today_is_the_digest_of_tomorrow():
    rows = table([{"name": "naïve\n", "number": 1e16, "count": -1, "flag": True, "tags": ["a"]}, {"number": math.nan}])
    assert fingerprint_digest(rows) == "3353e9a722c6b0335c72b2d93969cb1fcd40b822c49a8197d98eeb8d170ee36d"
