"""The base model of imported records: strict types, unknown columns kept, times as Unix seconds."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Shape(BaseModel):
    """The documented fields of one kind of record; its other fields are in `unknown`."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, protected_namespaces=())

    @property
    def unknown(self) -> dict[str, Any]:
        return self.model_extra or {}


def _seconds(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError("a time must be text in ISO 8601")
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("not a time in ISO 8601") from None


Time = Annotated[float, BeforeValidator(_seconds)]
"""ISO 8601; UTC if it names no zone."""
