"""Validate a vote as users send it, and turn it into a feedback event."""

import math
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, StringConstraints, model_validator

from ratchet.digest import digest_json
from ratchet.events import Feedback, Kind, Source
from ratchet.router.tokens import Ticket

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
MAX_TEXT_CHARS = 32_000


class VoteRequest(BaseModel):
    """The body of POST /v1/feedback; `value` by kind as in `ratchet.events.Feedback`. Its token says the rest.

    The same vote of a person on one answer counts once, however often it is sent. Another value of the same kind
    replaces it, and `is_retracted` takes it back; `feedback_id` tells apart votes that are meant to be several.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    value: float | Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
    is_tie: bool = False
    comment: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)] | None = None
    source: Source = "human"
    is_retracted: bool = False
    feedback_id: Id | None = None

    @model_validator(mode="after")
    def _value_suits_kind(self) -> Self:
        if fault := _fault(self):
            raise ValueError(f"{fault}; given {self.value!r}")
        return self

    def event(self, ticket: Ticket, created_at: float) -> Feedback:
        """Return the vote as the feedback of the ticket's subject on its answer. Raises ValueError if they mismatch."""
        if self.kind == "preference" and self.value == ticket.interaction_id:
            raise ValueError("a preference is the id of the interaction that lost, not of the one that won")
        # A changed vote is an event of its own: gate and datasets both take a person's last one on an answer.
        meant = [self.kind, self.feedback_id, self.value, self.is_tie, self.is_retracted]
        meant += [self.comment] if self.comment else []  # a vote without one keeps the id that it always had
        own_id = [ticket.interaction_id, ticket.subject_id, *meant]
        served = {"tenant": ticket.tenant, "adapter_digest": ticket.adapter_digest, "arm": ticket.arm}
        return Feedback(
            **self.model_dump(exclude={"feedback_id"}),
            **served,
            feedback_id=digest_json(own_id)[
                :32
            ],  # includes the ticket, so that no sender can take the id of another's vote
            interaction_id=ticket.interaction_id,
            subject_id=ticket.subject_id,
            created_at=created_at,
        )


def _fault(vote: VoteRequest) -> str | None:
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
            return None if _is_text(vote.value) else "a preference is the id of the interaction that lost"
        case _:
            is_measure = not isinstance(vote.value, str) and math.isfinite(vote.value) and vote.value >= 0
            return None if is_measure else f"{vote.kind} is a number, 0 or more (1 for: it happened)"


def _is_text(value: float | str) -> bool:
    return isinstance(value, str) and bool(value.strip())
