"""Decode JSON lines to rows of the lake's tables, fast; each line becomes a row or is refused with its fault. Pure.

A strict msgspec decoder, derived from the event models, takes the lines that match the models exactly. The rest (an
undeclared field, a number written as text, a line that is not JSON) goes to the models themselves, which are
authoritative on what an event is and which name the fault. Polars' own JSON reader cannot replace this: it turns 5 into
"5" where text is declared, drops unknown fields, and fails a whole file for one bad line.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, get_args

import msgspec
from annotated_types import Ge, Lt, MinLen
from pydantic import BaseModel, TypeAdapter, ValidationError

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

if TYPE_CHECKING:
    import polars as pl

PARAMS = TypeAdapter(dict[str, Any])
RAW = {"params": msgspec.Raw(b"{}")}  # fields that the fast decoder leaves undecoded, with their defaults


@dataclass(frozen=True)
class LineFault:
    """A line that is not an event: its index in the batch, and the models' error."""

    place: int
    error: ValidationError


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message without undeclared fields. Its fields are in the order of canonical JSON."""

    content: str
    role: str


def interactions(lines: Sequence[bytes]) -> tuple["pl.DataFrame", list[LineFault]]:
    """Decode lines to rows of the interactions table; also return the lines that are not interactions."""
    return _rows(lines, Interaction, INTERACTIONS, _interaction_columns, interaction_row)


def feedback(lines: Sequence[bytes]) -> tuple["pl.DataFrame", list[LineFault]]:
    """Decode lines to rows of the feedback table; also return the lines that are not feedback."""
    return _rows(lines, Feedback, FEEDBACK, _feedback_columns, feedback_row)


def _rows(
    lines: Sequence[bytes],
    model: type[BaseModel],
    table: Table,
    columns: Callable[[list[Any]], dict[str, list[Any]]],
    to_row: Callable[[Any], dict[str, Any]],
) -> tuple["pl.DataFrame", list[LineFault]]:
    import polars as pl

    decode = _decoder(model).decode
    events, rows, faults = [], [], []
    for place, line in enumerate(lines):
        try:
            event = decode(line)
            if table is INTERACTIONS:
                _canonical_params(bytes(event.params))  # undecoded so far, so it may not be an object
            events.append(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValidationError):
            try:
                rows.append(to_row(model.model_validate_json(line)))
            except ValidationError as error:
                faults.append(LineFault(place, error))
    schema = {name: kind for name, kind in table.schema.items() if name != COLLECTION}
    derived = columns(events)
    plain = {name: [getattr(event, name) for event in events] for name in schema if name not in derived}
    return pl.concat([pl.DataFrame(plain | derived, schema), pl.DataFrame(rows, schema)]), faults


def _interaction_columns(events: list[Any]) -> dict[str, list[Any]]:
    encode = msgspec.json.encode
    return {
        "messages": [encode(event.messages).decode() for event in events],
        "params": [_canonical_params(bytes(event.params)) for event in events],
        **{name: [_list_text(getattr(event, name)) for event in events] for name in JSON_COLUMNS},
        TURN: [None] * len(events),
        "extra": ["{}"] * len(events),
    }


def _feedback_columns(events: list[Any]) -> dict[str, list[Any]]:
    values = [event.value for event in events]
    return {
        "value_num": [None if isinstance(value, str) else value for value in values],
        "value_text": [value if isinstance(value, str) else None for value in values],
        "extra": [
            _canonical_extra(
                event.tenant, event.adapter_digest, event.arm, None if event.tags is None else tuple(event.tags)
            )
            for event in events
        ],
    }


@lru_cache(maxsize=10_000)
def _canonical_params(text: bytes) -> str:
    return to_json(PARAMS.validate_json(text))


@lru_cache(maxsize=10_000)
def _canonical_extra(*values: str | tuple[str, ...] | None) -> str:
    """Return the declared fields without a column as `feedback_row` writes them: a router's votes share few values."""
    return to_json({name: value for name, value in zip(KEPT_IN_EXTRA, values, strict=True) if value is not None})


def _list_text(value: list[Any] | None) -> str | None:
    return None if value is None else to_json(value)


@cache
def _decoder(model: type[BaseModel]) -> "msgspec.json.Decoder[Any]":
    """Return a decoder of the model's fields, with its defaults and bounds, that refuses any other field."""
    fields: list[tuple[str, Any, Any]] = []
    for name, field in model.model_fields.items():
        default = msgspec.NODEFAULT if field.is_required() else field.default
        fields.append((name, _field_type(name, field.annotation, field.metadata), RAW.get(name, default)))
    struct = msgspec.defstruct(model.__name__, fields, forbid_unknown_fields=True, kw_only=True, gc=False)
    return msgspec.json.Decoder(struct)


def _field_type(name: str, annotation: Any, metadata: Iterable[Any]) -> Any:
    if name == "messages":
        return list[Message]
    if name in RAW:
        return msgspec.Raw
    bounds: dict[str, Any] = {}
    for bound in metadata:
        match bound:
            case MinLen(length):
                bounds["min_length"] = length
            case Ge(low):
                bounds["ge"] = low
            case Lt(int(high)):
                bounds["le"] = high - 1  # msgspec cannot compare with 2 ** 63 itself
    kind = next((kind for kind in get_args(annotation) if kind is not type(None)), annotation)
    bounded: Any = Annotated[kind, msgspec.Meta(**bounds)]  # msgspec bounds no union with None
    return annotation if not bounds else bounded if kind is annotation else bounded | None
