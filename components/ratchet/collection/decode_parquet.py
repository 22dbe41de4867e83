"""Check a Parquet file's rows against the event models: each becomes a table row or is refused with its fault. Pure.

Whole columns are checked at once. A row that the checks do not clear (messages that are not canonical JSON, an unknown
kind) goes to the event models, which are authoritative on what an event is.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, get_args, get_origin

import polars as pl
from pydantic import BaseModel, ValidationError

from ratchet.collection.decode_json import LineFault
from ratchet.events import Feedback, Interaction
from ratchet.lake.schema import (
    COLLECTION,
    FEEDBACK,
    INTERACTIONS,
    JSON_COLUMNS,
    KEPT_IN_EXTRA,
    TURN,
    Table,
    feedback_row,
    interaction_row,
    to_json,
)

TEXT = r'"(?:[^"\\\x00-\x1f]|\\["\\bfnrt]|\\u000[0-7be]|\\u001[0-9a-f])*"'
MESSAGE = rf'\{{"content":{TEXT},"role":{TEXT}\}}'
CANONICAL_MESSAGES = rf"^\[(?:{MESSAGE}(?:,{MESSAGE})*)?\]$"
ANY_JSON = ("params", "extra")


class WrongColumns(Exception):
    """The file is not a table of events; the message names the columns at fault."""


def interactions(found: pl.DataFrame) -> tuple[pl.DataFrame, list[LineFault]]:
    """Return rows of the interactions table, and the rows that are not interactions. Raises WrongColumns."""
    rows = _with_defaults(found, INTERACTIONS, Interaction)
    is_clear = _is_clear(rows, INTERACTIONS, Interaction) & pl.col("messages").str.contains(CANONICAL_MESSAGES)
    is_clear &= pl.all_horizontal(pl.col(*JSON_COLUMNS).is_null())
    return _validate_rest(rows, is_clear, lambda row: interaction_row(Interaction.model_validate(_interaction(row))))


def feedback(found: pl.DataFrame) -> tuple[pl.DataFrame, list[LineFault]]:
    """Return rows of the feedback table, and the rows that are not feedback. Raises WrongColumns."""
    rows = _with_defaults(found, FEEDBACK, Feedback)
    is_clear = _is_clear(rows, FEEDBACK, Feedback) & (pl.col("value_num").is_null() != pl.col("value_text").is_null())
    return _validate_rest(rows, is_clear, lambda row: feedback_row(Feedback.model_validate(_feedback(row))))


def as_line(row: Mapping[str, Any]) -> bytes:
    """Return a refused row as the JSON line that its producer would have sent."""
    event = _feedback(row) if FEEDBACK.id in row else _interaction(row)
    return json.dumps(event, sort_keys=True, default=str).encode()


def _with_defaults(found: pl.DataFrame, table: Table, model: type[BaseModel]) -> pl.DataFrame:
    """Return the table's columns in its types, with the model's default for each absent column and null."""
    kinds = {name: kind for name, kind in table.schema.items() if name not in (COLLECTION, TURN)}
    defaults = {name: field.default for name, field in model.model_fields.items() if not field.is_required()}
    defaults |= {"params": "{}", "extra": "{}", "value_num": None, "value_text": None}
    missing, unknown = set(kinds) - set(defaults) - set(found.columns), set(found.columns) - set(kinds) - {TURN}
    if missing or unknown:
        raise WrongColumns(f"columns missing: {sorted(missing) or 'none'}; unknown: {sorted(unknown) or 'none'}")
    columns = []
    for name, kind in kinds.items():
        given = pl.col(name) if name in found.columns else pl.lit(None)
        if not _is_castable(found.schema.get(name, pl.Null()), kind):
            raise WrongColumns(f"column {name} is {found.schema[name]}, not {kind.__name__}")
        columns.append(given.cast(pl.DataType.from_python(kind)).fill_null(pl.lit(defaults.get(name))).alias(name))
    if TURN in table.schema:
        columns.append(pl.lit(None, pl.Int64).alias(TURN))
    return found.select(columns).select([name for name in table.schema if name != COLLECTION])


def _is_castable(given: pl.DataType, kind: type) -> bool:
    if given == pl.Null:
        return True
    if kind is float:
        return given.is_numeric()
    if kind is int:
        return given.is_integer() and given not in (pl.UInt64, pl.Int128, pl.UInt128)
    return given == pl.DataType.from_python(kind)


def _is_clear(rows: pl.DataFrame, table: Table, model: type[BaseModel]) -> pl.Expr:
    """Return where every required column is set and every value is one that its field allows."""
    required = [name for name, field in model.model_fields.items() if field.is_required() and name in rows.columns]
    checks = [pl.col(name).is_not_null() for name in required]
    checks += [pl.col(name) != "" for name in {table.id, INTERACTIONS.id}]
    for name, field in model.model_fields.items():
        if get_origin(field.annotation) is Literal:
            checks.append(pl.col(name).is_in(get_args(field.annotation)))
    for name in ANY_JSON:
        if name in rows.columns:
            checks.append(pl.col(name).is_in([text for text in rows[name].unique() if _is_canonical(text)]))
    return pl.all_horizontal(checks).fill_null(False)


def _is_canonical(text: str) -> bool:
    try:
        value = json.loads(text)
        if not isinstance(value, dict) or to_json(value) != text:
            return False
        # The declared fields that feedback keeps in `extra` are as `feedback_row` writes them.
        return all(isinstance(value.get(name, ""), str) for name in KEPT_IN_EXTRA)
    except (ValueError, RecursionError):
        return False


def _validate_rest(rows: pl.DataFrame, is_clear: pl.Expr, to_row: Any) -> tuple[pl.DataFrame, list[LineFault]]:
    """Pass the clear rows through, and validate the others one by one; also return those that fail."""
    clear = rows.select(is_clear.fill_null(False)).to_series()
    if clear.all():
        return rows, []
    saved, faults = [], []
    for place in (~clear).arg_true():
        try:
            saved.append(to_row(rows.row(place, named=True)))
        except ValidationError as error:
            faults.append(LineFault(place, error))
    return pl.concat([rows.filter(clear), pl.DataFrame(saved, rows.schema)]), faults


def _interaction(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row as its producer would have sent it: JSON columns parsed, `extra` merged in."""
    are_json = ("messages", "params", *JSON_COLUMNS)
    event = {name: _parsed(value) if name in are_json else value for name, value in row.items() if name != TURN}
    return _with_extra(event)


def _feedback(row: Mapping[str, Any]) -> dict[str, Any]:
    event = dict(row)
    number, text = event.pop("value_num", None), event.pop("value_text", None)
    if number is None or text is None:
        event["value"] = text if number is None else number
    return _with_extra(event)


def _with_extra(event: dict[str, Any]) -> dict[str, Any]:
    extra = _parsed(event.pop("extra", None))
    return (extra | event) if isinstance(extra, dict) else event


def _parsed(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except (ValueError, RecursionError):
        return text
