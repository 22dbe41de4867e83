"""Compile an expectation suite to one bit mask for each row, in Polars: bit n is set where expectation n is not met.

Great Expectations checks some 50,000 rows a second; this checks millions. It compiles the expectations of
`ratchet.validation.expectations` and refuses others, and ambiguous arguments, by name. Tests compare it with Great
Expectations, and so does every run, on a sample (`gx.check_parity`).
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from ratchet.errors import UserError
from ratchet.validation.expectations import EXPECTATIONS, Columns, NotSupported, Outcome, holds, unique
from ratchet.validation.regex_to_rust import NotTranslatable

MASK = "mask"
MAX_RULES = 63  # bits of a positive Int64


@dataclass(frozen=True)
class Rule:
    """One compiled expectation: its reason, and where a row breaks it (true or false, never null)."""

    reason: str
    is_broken: pl.Expr


def compile_suite(
    suite: Mapping[str, Any],
    schema: Mapping[str, pl.DataType],
    limits: Mapping[str, Any],
    key: str,
    repeated: Sequence[str] = (),
) -> tuple[Rule, ...]:
    """Return the suite's rules in order, with `limits` as its `$PARAMETER`s.

    Uniqueness of `key` is checked within the rows at hand and against `repeated`, the keys that also occur elsewhere.
    Raises UserError for an expectation, an argument, a pattern or a column that the compiler does not support.
    """
    expectations = suite["expectations"]
    if len(expectations) > MAX_RULES:
        raise UserError(f"suite {suite['name']} has {len(expectations)} expectations; the most is {MAX_RULES}")
    columns = Columns(schema, key, tuple(repeated))
    return tuple(_compile(expectation, columns, limits) for expectation in expectations)


def mask(rules: Sequence[Rule]) -> pl.Expr:
    """Return the mask: bit n is set where rule n is broken; 0 for a good row."""
    return pl.sum_horizontal(
        pl.lit(0, pl.Int64), *(rule.is_broken.cast(pl.Int64) * (1 << bit) for bit, rule in enumerate(rules))
    ).alias(MASK)


def reasons(rules: Sequence[Rule]) -> pl.Expr:
    """Return the list of reasons that a mask encodes, in the suite's order."""
    named = [pl.when(_has(bit)).then(pl.lit(rule.reason)) for bit, rule in enumerate(rules)]
    return pl.concat_list(named).list.drop_nulls()


def failures(rules: Sequence[Rule]) -> list[pl.Expr]:
    """Return the number of rows that break each rule, as columns named by reason."""
    return [_has(bit).sum().alias(rule.reason) for bit, rule in enumerate(rules)]


def _has(bit: int) -> pl.Expr:
    return (pl.col(MASK) & (1 << bit)) != 0


def _compile(expectation: Mapping[str, Any], columns: Columns, limits: Mapping[str, Any]) -> Rule:
    name, reason = expectation["type"], expectation["meta"]["reason"]
    try:
        kwargs = dict(_filled(expectation["kwargs"], limits))
        condition = kwargs.pop("row_condition", None)
        if kwargs.pop("mostly", 1) != 1:
            raise NotSupported("mostly: a row is good or not; how many may be bad is validate_triplets.max_bad_share")
        if name not in EXPECTATIONS:
            raise NotSupported(f"not among those it knows: {', '.join(sorted(EXPECTATIONS))}")
        outcome = _evaluate(EXPECTATIONS[name], columns, kwargs, condition)
    except (NotSupported, NotTranslatable) as error:
        raise UserError(f"the suite's expectation {name} ({reason}) cannot be compiled: {error}") from None
    return Rule(reason, outcome.applies & ~outcome.is_met.fill_null(False))


def _evaluate(build: Callable[..., Outcome], columns: Columns, kwargs: dict[str, Any], condition: Any) -> Outcome:
    scope = holds(condition, columns) if condition else pl.lit(True)
    if build is unique:  # the only one that compares rows, and must ignore those out of scope
        kwargs["scope"] = scope
    try:
        inspect.signature(build).bind(columns, **kwargs)
    except TypeError as error:
        raise NotSupported(str(error)) from None
    outcome = build(columns, **kwargs)
    return Outcome(scope & outcome.applies, outcome.is_met)


def _filled(value: Any, limits: Mapping[str, Any]) -> Any:
    """Return the value with every `$PARAMETER` replaced by its limit."""
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"$PARAMETER"}:
        if value["$PARAMETER"] not in limits:
            raise NotSupported(f"parameter {value['$PARAMETER']}; given are {', '.join(limits)}")
        return limits[value["$PARAMETER"]]
    return {name: _filled(inner, limits) for name, inner in value.items()}
