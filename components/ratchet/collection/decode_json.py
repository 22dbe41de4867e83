"""Lines of JSON as rows of the lake's tables, fast; every line either becomes a row or is refused with its fault. Pure.

A strict decoder, made from the same models, takes the lines that say exactly what the models say. What it does not
take (a field that we do not know, a number written as text, a line that is no JSON) goes to the models themselves:
they are the law on what an event is, and name the fault of what is none. Polars' own JSON reader is no stand-in: it
turns 5 into "5" where a text is due, forgets unknown fields, and gives up on a whole file for one bad line.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from annotated_types import Ge, Lt, MinLen
from pydantic import BaseModel, TypeAdapter, ValidationError

from ratchet.events import Feedback, Interaction
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, Table, feedback_row, interaction_row, to_json

if TYPE_CHECKING:
    import polars as pl

PARAMS = TypeAdapter(dict[str, Any])
RAW = {"params": msgspec.Raw(b"{}")}  # the fast decoder leaves these as they are written


@dataclass(frozen=True)
class LineFault:
    """A line that is no event: where it stands among the lines that were given, and what is wrong with it."""

    place: int
    error: ValidationError


class Message(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A message without extras. Its fields are in the order of canonical JSON."""

    content: str
    role: str


def interactions(lines: Sequence[bytes]) -> tuple["pl.DataFrame", list[LineFault]]:
    """Rows of the interactions table, and the lines that are no interactions."""
    return _rows(lines, Interaction, INTERACTIONS, _interaction_columns, interaction_row)


def feedback(lines: Sequence[bytes]) -> tuple["pl.DataFrame", list[LineFault]]:
    """Rows of the feedback table, and the lines that are no feedback."""
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
                _params(bytes(event.params))  # which the decoder left as it is, so it may be no object
            events.append(event)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValidationError):
            try:
                rows.append(to_row(model.model_validate_json(line)))
            except ValidationError as error:
                faults.append(LineFault(place, error))
    schema = {name: kind for name, kind in table.schema.items() if name != COLLECTION}
    told = {"extra": ["{}"] * len(events), **columns(events)}
    plain = {name: [getattr(event, name) for event in events] for name in schema if name not in told}
    return pl.concat([pl.DataFrame(plain | told, schema), pl.DataFrame(rows, schema)]), faults


def _interaction_columns(events: list[Any]) -> dict[str, list[Any]]:
    encode = msgspec.json.encode
    return {
        "messages": [encode(event.messages).decode() for event in events],
        "params": [_params(bytes(event.params)) for event in events],
    }


def _feedback_columns(events: list[Any]) -> dict[str, list[Any]]:
    values = [event.value for event in events]
    return {
        "value_num": [None if isinstance(value, str) else value for value in values],
        "value_text": [value if isinstance(value, str) else None for value in values],
    }


@lru_cache(maxsize=10_000)
def _params(text: bytes) -> str:
    return to_json(PARAMS.validate_json(text))


@cache
def _decoder(model: type[BaseModel]) -> "msgspec.json.Decoder[Any]":
    """A decoder of the model's fields, with its defaults and bounds, that allows nothing else."""
    fields: list[tuple[str, Any, Any]] = []
    for name, field in model.model_fields.items():
        default = msgspec.NODEFAULT if field.is_required() else field.default
        fields.append((name, _kind(name, field.annotation, field.metadata), RAW.get(name, default)))
    kind = msgspec.defstruct(model.__name__, fields, forbid_unknown_fields=True, kw_only=True, gc=False)
    return msgspec.json.Decoder(kind)


def _kind(name: str, annotation: Any, metadata: Iterable[Any]) -> Any:
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
                bounds["le"] = high - 1  # 2 ** 63 itself is more than msgspec can compare with
    return Annotated[annotation, msgspec.Meta(**bounds)] if bounds else annotation
