"""Validate a vote as users send it, and turn it into a feedback event."""

import math
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from ratchet.digest import digest_json
from ratchet.events import Feedback, Kind, Source
from ratchet.router.tokens import Ticket

Id = Annotated[str, StringConstraints(min_length=1, max_length=256)]
AnswerId = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
MAX_TEXT_CHARS = 32_000
# What is recorded for a vote that is taken back without its value; a preference must name the pair.
TAKEN_BACK = {"thumb": 1, "rating": 1, "correction": "taken back", "comment": "taken back"}
MAX_CHOICES = 128  # OpenAI's bound of `n`


class VoteRequest(BaseModel):
    """The body of POST /v1/feedback; `value` by kind as in `ratchet.events.Feedback`.

    The answer is named by the token that came with it, or by its id and the tenant's key. Of a person's votes of one
    kind on one answer the last one counts, and `is_retracted` takes it back. A vote that is sent again with the same
    `feedback_id` is one vote, so a client that tries again after an error gives it one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: AnswerId | None = Field(None, description="the completion's id, or the x-request-id that came with it")
    choice: Annotated[int, Field(ge=0, lt=MAX_CHOICES)] = Field(0, description="which of its choices is meant")
    user: Id | None = Field(None, description="who votes; whoever asked, if it is not given")
    kind: Kind
    value: float | Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
    is_tie: bool = False
    comment: Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)] | None = None
    tags: Annotated[list[Id], Field(max_length=32)] | None = None
    source: Source = "human"
    is_retracted: bool = False
    feedback_id: Id | None = None

    @model_validator(mode="before")
    @classmethod
    def _value_of_what_is_taken_back(cls, given: Any) -> Any:
        if not isinstance(given, dict) or given.get("is_retracted") is not True or given.get("value") is not None:
            return given
        kind = given.get("kind")
        return {**given, "value": TAKEN_BACK[kind]} if isinstance(kind, str) and kind in TAKEN_BACK else given

    @model_validator(mode="after")
    def _value_suits_kind(self) -> Self:
        if fault := _fault(self):
            raise ValueError(f"{fault}; given {self.value!r}")
        return self

    def event(self, ticket: Ticket, created_at: float) -> Feedback:
        """Return the vote as the feedback of the ticket's subject on its answer. Raises ValueError if they mismatch."""
        interaction_id = of_choice(ticket.interaction_id, self.choice)
        value = self.value
        if self.kind == "preference" and not isinstance(value, str):
            value = of_choice(ticket.interaction_id, int(value))
        if self.kind == "preference" and value == interaction_id:
            raise ValueError("a preference is the id of the interaction that lost, not of the one that won")
        # The id includes the ticket, so that no sender can take the id of another's vote. Without an id of the client's
        # own each sending is an event of its own: up, down and up again must not end as down.
        own_id = [interaction_id, ticket.subject_id, self.kind, self.feedback_id, value, self.is_tie, self.is_retracted]
        own_id += [created_at] if self.feedback_id is None else []
        served = {"tenant": ticket.tenant, "adapter_digest": ticket.adapter_digest, "arm": ticket.arm}
        return Feedback(
            **self.model_dump(exclude={"feedback_id", "id", "choice", "user", "value"}),
            **served,
            value=value,
            feedback_id=digest_json(own_id)[:32],
            interaction_id=interaction_id,
            subject_id=ticket.subject_id,
            created_at=created_at,
        )


def of_choice(interaction_id: str, choice: int) -> str:
    """Return the interaction of one choice of a completion: each choice is an answer of its own."""
    return f"{interaction_id}-{choice}" if choice else interaction_id


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
            is_choice = not isinstance(vote.value, str) and vote.value in range(MAX_CHOICES)
            is_given = _is_text(vote.value) or is_choice
            return None if is_given else "a preference is the id of the answer that lost, or the number of its choice"
        case _:
            is_measure = not isinstance(vote.value, str) and math.isfinite(vote.value) and vote.value >= 0
            return None if is_measure else f"{vote.kind} is a number, 0 or more (1 for: it happened)"


def _is_text(value: float | str) -> bool:
    return isinstance(value, str) and bool(value.strip())
