"""What the shapes of foreign records have in common: strict types, unknown columns kept, times as Unix seconds."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict


class Shape(BaseModel):
    """The documented fields of one kind of record. What else it holds is in `model_extra`."""

    model_config = ConfigDict(strict=True, extra="allow", frozen=True, protected_namespaces=())

    @property
    def unknown(self) -> dict[str, Any]:
        return self.model_extra or {}


def _seconds(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError("a time is a text in ISO 8601")
    try:
        moment = datetime.fromisoformat(value)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise ValueError("no time in ISO 8601") from None


Time = Annotated[float, BeforeValidator(_seconds)]
"""ISO 8601, in UTC where it names no zone."""
