"""The supported expectations as Polars expressions.

Their semantics are those of Great Expectations' pandas engine: null and NaN are the same, most expectations skip them,
lengths count code points, patterns are searched for, not matched from the start.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from operator import and_, or_
from typing import Any

import polars as pl

from ratchet.validation.regex_to_rust import to_rust


@dataclass(frozen=True)
class Outcome:
    """An evaluated expectation: the rows that it applies to, and those that meet it (null counts as not met)."""

    applies: pl.Expr
    is_met: pl.Expr


class NotSupported(ValueError):
    """The compiler does not support this, or cannot give it the meaning that Great Expectations gives."""


@dataclass(frozen=True)
class Columns:
    """The table that a suite is compiled for: its columns' types, and its key column."""

    schema: Mapping[str, pl.DataType]
    key: str
    repeated: tuple[str, ...] = ()
    """Keys that also occur in rows elsewhere."""

    def get(self, name: str) -> pl.Expr:
        """Return the column with NaN as null, which pandas does not distinguish."""
        return pl.col(name).fill_nan(None) if self._type(name).is_float() else pl.col(name)

    def text(self, name: str) -> pl.Expr:
        if self._type(name) != pl.String:
            raise NotSupported(f"column {name} is {self._type(name)}, and this is for text")
        return pl.col(name)

    def number(self, name: str) -> pl.Expr:
        if not self._type(name).is_numeric():
            raise NotSupported(f"column {name} is {self._type(name)}, and this is for numbers")
        return self.get(name)

    def comparable(self, name: str, values: Sequence[Any]) -> pl.Expr:
        """Return the column if all values have its kind; pandas' comparison of text with numbers is not supported."""
        kinds = {_kind_of(value) for value in values if value is not None}
        if kinds - {_kind_of_type(self._type(name))}:
            raise NotSupported(f"column {name} is {self._type(name)}, compared with {values}")
        return self.get(name)

    def alike(self, names: Sequence[str]) -> list[pl.Expr]:
        if len({_kind_of_type(self._type(name)) for name in names}) != 1:
            raise NotSupported(f"columns {', '.join(names)} are of different types")
        return [self.get(name) for name in names]

    def _type(self, name: str) -> pl.DataType:
        if name not in self.schema:
            raise NotSupported(f"no column {name}; there are {', '.join(sorted(self.schema))}")
        return self.schema[name]


def holds(condition: Mapping[str, Any], columns: Columns) -> pl.Expr:
    """Return where a row_condition holds. As in pandas, null equals nothing, so `!=` and `NOT_IN` hold for it."""
    kind = condition.get("type")
    if kind in ("and", "or"):
        parts = [holds(part, columns) for part in condition["conditions"]]
        return reduce(and_ if kind == "and" else or_, parts)
    if kind not in ("comparison", "nullity"):
        raise NotSupported(f"row_condition of type {kind}")
    name = condition["column"]["name"]
    if kind == "nullity":
        return columns.get(name).is_null() if condition["is_null"] else columns.get(name).is_not_null()
    operator, value = condition["operator"], condition["parameter"]
    column = columns.comparable(name, value if isinstance(value, list) else [value])
    if operator not in OPERATORS:
        raise NotSupported(f"operator {operator}")
    return OPERATORS[operator](column, value).fill_null(operator in ("!=", "NOT_IN"))


OPERATORS: dict[str, Callable[[pl.Expr, Any], pl.Expr]] = {
    "==": lambda column, value: column == value,
    "!=": lambda column, value: column != value,
    "<": lambda column, value: column < value,
    "<=": lambda column, value: column <= value,
    ">": lambda column, value: column > value,
    ">=": lambda column, value: column >= value,
    "IN": lambda column, values: _is_in(column, values),
    "NOT_IN": lambda column, values: ~_is_in(column, values),
}


def _is_in(column: pl.Expr, values: Sequence[Any]) -> pl.Expr:
    """Return true where the column has one of the values, and null where it is null."""
    return reduce(or_, (column == value for value in values if value is not None), pl.lit(False) & column.is_null())


def _kind_of(value: Any) -> str:
    if isinstance(value, bool):
        return "truth"
    return "number" if isinstance(value, int | float) else "text" if isinstance(value, str) else type(value).__name__


def _kind_of_type(kind: pl.DataType) -> str:
    if kind == pl.Boolean:
        return "truth"
    return "number" if kind.is_numeric() else "text" if kind == pl.String else str(kind)


def _present(column: pl.Expr, is_met: pl.Expr) -> Outcome:
    """Return the outcome of an expectation that skips nulls, as most do."""
    return Outcome(column.is_not_null(), is_met)


def _not_null(columns: Columns, column: str) -> Outcome:
    return Outcome(pl.lit(True), columns.get(column).is_not_null())


def _null(columns: Columns, column: str) -> Outcome:
    return Outcome(pl.lit(True), columns.get(column).is_null())


def unique(columns: Columns, column: str, scope: pl.Expr) -> Outcome:
    if column != columns.key:
        raise NotSupported(
            f"unique {column}: rows are checked in parts, and only rows of equal {columns.key} are in one part"
        )
    values = pl.when(scope).then(columns.get(column))
    is_repeated = values.is_duplicated()
    if columns.repeated:
        is_repeated |= values.is_in(list(columns.repeated))
    return Outcome(values.is_not_null(), ~is_repeated)


def _in_set(columns: Columns, column: str, value_set: Sequence[Any]) -> Outcome:
    values = columns.comparable(column, value_set)
    return _present(values, _is_in(values, value_set))


def _not_in_set(columns: Columns, column: str, value_set: Sequence[Any]) -> Outcome:
    values = columns.comparable(column, value_set)
    return _present(values, ~_is_in(values, value_set))


def _between(
    columns: Columns,
    column: str,
    min_value: float | None = None,
    max_value: float | None = None,
    strict_min: bool = False,
    strict_max: bool = False,
) -> Outcome:
    values = columns.number(column)
    return _present(values, _within(values, min_value, max_value, strict_min, strict_max))


def _lengths_between(
    columns: Columns,
    column: str,
    min_value: int | None = None,
    max_value: int | None = None,
    strict_min: bool = False,
    strict_max: bool = False,
) -> Outcome:
    values = columns.text(column)
    return _present(values, _within(values.str.len_chars(), min_value, max_value, strict_min, strict_max))


def _within(
    values: pl.Expr, low: float | None, high: float | None, is_above: bool | None, is_below: bool | None
) -> pl.Expr:
    if low is None and high is None:
        raise NotSupported("neither min_value nor max_value")
    bounds = []
    if low is not None:
        bounds.append(values > low if is_above else values >= low)
    if high is not None:
        bounds.append(values < high if is_below else values <= high)
    return reduce(and_, bounds)


def _length(columns: Columns, column: str, value: int) -> Outcome:
    values = columns.text(column)
    return _present(values, values.str.len_chars() == value)


def _match(columns: Columns, column: str, regex: str) -> Outcome:
    values = columns.text(column)
    return _present(values, values.str.contains(to_rust(regex)))


def _not_match(columns: Columns, column: str, regex: str) -> Outcome:
    values = columns.text(column)
    return _present(values, ~values.str.contains(to_rust(regex)))


def _match_list(columns: Columns, column: str, regex_list: Sequence[str], match_on: str = "any") -> Outcome:
    if match_on not in ("any", "all") or not regex_list:
        raise NotSupported(f"match_on {match_on}, {len(regex_list)} patterns; want any or all, and a pattern at least")
    values = columns.text(column)
    matches = [values.str.contains(to_rust(regex)) for regex in regex_list]
    return _present(values, reduce(or_ if match_on == "any" else and_, matches))


def _not_match_list(columns: Columns, column: str, regex_list: Sequence[str]) -> Outcome:
    outcome = _match_list(columns, column, regex_list)
    return Outcome(outcome.applies, ~outcome.is_met)


# The rows that `ignore_row_if` does not skip, given which of their columns are null.
IGNORE: dict[str, Callable[[list[pl.Expr]], pl.Expr]] = {
    "both_values_are_missing": lambda nulls: ~reduce(and_, nulls),
    "all_values_are_missing": lambda nulls: ~reduce(and_, nulls),
    "either_value_is_missing": lambda nulls: ~reduce(or_, nulls),
    "any_value_is_missing": lambda nulls: ~reduce(or_, nulls),
    "neither": lambda nulls: pl.lit(True),
    "never": lambda nulls: pl.lit(True),
}


def _together(values: list[pl.Expr], ignore_row_if: str, is_met: pl.Expr) -> Outcome:
    if ignore_row_if not in IGNORE:
        raise NotSupported(f"ignore_row_if {ignore_row_if}; known are {', '.join(IGNORE)}")
    return Outcome(IGNORE[ignore_row_if]([column.is_null() for column in values]), is_met)


def _pair_equal(
    columns: Columns, column_A: str, column_B: str, ignore_row_if: str = "both_values_are_missing"
) -> Outcome:
    first, second = columns.alike([column_A, column_B])
    return _together([first, second], ignore_row_if, first == second)


def _pair_greater(
    columns: Columns,
    column_A: str,
    column_B: str,
    or_equal: bool = False,
    ignore_row_if: str = "both_values_are_missing",
) -> Outcome:
    first, second = columns.number(column_A), columns.number(column_B)
    return _together([first, second], ignore_row_if, first >= second if or_equal else first > second)


def _pair_in_set(
    columns: Columns,
    column_A: str,
    column_B: str,
    value_pairs_set: Sequence[Sequence[Any]],
    ignore_row_if: str = "both_values_are_missing",
) -> Outcome:
    first = columns.comparable(column_A, [pair[0] for pair in value_pairs_set])
    second = columns.comparable(column_B, [pair[1] for pair in value_pairs_set])
    pairs = (first.eq_missing(pl.lit(a)) & second.eq_missing(pl.lit(b)) for a, b in value_pairs_set)
    return _together([first, second], ignore_row_if, reduce(or_, pairs, pl.lit(False)))


def _distinct_within_row(
    columns: Columns, column_list: Sequence[str], ignore_row_if: str = "all_values_are_missing"
) -> Outcome:
    values = columns.alike(column_list)
    differ = (first.ne_missing(second) for first, second in combinations(values, 2))
    return _together(values, ignore_row_if, reduce(and_, differ, pl.lit(True)))


EXPECTATIONS: dict[str, Callable[..., Outcome]] = {
    "expect_column_values_to_not_be_null": _not_null,
    "expect_column_values_to_be_null": _null,
    "expect_column_values_to_be_unique": unique,
    "expect_column_values_to_be_in_set": _in_set,
    "expect_column_values_to_not_be_in_set": _not_in_set,
    "expect_column_values_to_be_between": _between,
    "expect_column_value_lengths_to_be_between": _lengths_between,
    "expect_column_value_lengths_to_equal": _length,
    "expect_column_values_to_match_regex": _match,
    "expect_column_values_to_not_match_regex": _not_match,
    "expect_column_values_to_match_regex_list": _match_list,
    "expect_column_values_to_not_match_regex_list": _not_match_list,
    "expect_column_pair_values_to_be_equal": _pair_equal,
    "expect_column_pair_values_a_to_be_greater_than_b": _pair_greater,
    "expect_column_pair_values_to_be_in_set": _pair_in_set,
    "expect_select_column_values_to_be_unique_within_record": _distinct_within_row,
}
