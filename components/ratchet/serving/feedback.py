"""A vote as users send it, and what is refused at the door."""

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from ratchet.digest import digest_json
from ratchet.events import Feedback, Kind, Source

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Vote(BaseModel):
    """The body of POST /v1/feedback; `value` by kind as in `ratchet.events.Feedback`.

    Without a `feedback_id` it is made from interaction, subject and kind: whoever votes twice is counted once.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    interaction_id: Id
    subject_id: Id
    kind: Kind
    value: float | str
    is_tie: bool = False
    source: Source = "human"
    feedback_id: Id | None = None

    @model_validator(mode="after")
    def _value_suits_kind(self) -> Self:
        if fault := _fault(self):
            raise ValueError(f"{fault}; given {self.value!r}")
        return self

    def event(self, created_at: float) -> Feedback:
        own_id = digest_json([self.interaction_id, self.subject_id, self.kind])[:32]
        fields = self.model_dump(exclude={"feedback_id"})
        return Feedback(**fields, feedback_id=self.feedback_id or own_id, created_at=created_at)


def _fault(vote: Vote) -> str | None:
    if vote.is_tie and vote.kind != "preference":
        return f"is_tie goes with kind 'preference', not {vote.kind!r}"
    match vote.kind:
        case "thumb":
            return None if vote.value in (-1, 1) else "a thumb is 1 (up) or -1 (down)"
        case "rating":
            return None if vote.value in (1, 2, 3, 4, 5) else "a rating is a whole number from 1 to 5"
        case "correction":
            return None if _is_text(vote.value) else "a correction is the text that it should have been"
        case "comment":
            return None if _is_text(vote.value) else "a comment is a text"
        case "preference":
            is_other = _is_text(vote.value) and vote.value != vote.interaction_id
            return None if is_other else "a preference is the id of the interaction that lost"
        case _:
            return None if _is_measure(vote.value) else f"{vote.kind} is a number, 0 or more (1 for: it happened)"


def _is_text(value: float | str) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_measure(value: float | str) -> bool:
    return not isinstance(value, str) and math.isfinite(value) and value >= 0
