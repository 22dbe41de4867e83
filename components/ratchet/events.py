"""The lake's two events: an interaction (a served answer) and feedback (one signal on an interaction).

These models check types only. Whether a rating of 11 or an empty answer is acceptable is decided by the data contract
(`ratchet.validation`), which quarantines the row with a reason; a line that fails these models is refused.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from ratchet.adapter_ref import BASE_DIGEST

Kind = Literal[
    "thumb", "rating", "correction", "preference", "comment",
    "regenerate", "copy", "accept", "dwell_ms", "click", "abandon",
]  # fmt: skip
EXPLICIT: tuple[Kind, ...] = ("thumb", "rating", "correction", "preference")
Source = Literal["human", "model", "code"]
Consent = Literal["granted", "denied", "withdrawn", "unknown"]
Count = Annotated[int | None, Field(ge=-(2**63), lt=2**63)]


def _is_none(value: object) -> bool:
    return value is None


class Event(BaseModel):
    # Unknown fields are kept in the tables' `extra`: a producer may record more than we do.
    model_config = ConfigDict(frozen=True, extra="allow")


class Message(BaseModel):
    """One message of a chat. Undeclared fields (`tool_calls`, `tool_call_id`, `name`, ...) are kept as they are.

    `content` is its text: parts of text are joined by line breaks, as vLLM does, and no content is an empty text. A
    message with a part that is no text has `parts` beside it: all of them, with media by digest and size.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    role: str
    content: str


class Interaction(Event):
    """One served answer, with its prompt and the adapter that gave it."""

    interaction_id: str = Field(min_length=1)
    conversation_id: str = Field(
        description="the chat that it is a turn of; its own id where none is known: collection then finds the chat"
    )
    subject_id: str = Field(description="who asked, pseudonymous")
    tenant: str = "default"
    messages: list[Message] = Field(description="the prompt, chat format")
    response: str
    base_model: str
    adapter_name: str = "base"
    adapter_version: str = "0"
    adapter_digest: str = BASE_DIGEST
    arm: str = "primary"
    params: dict[str, Any] = Field({}, description="sampling, response format, tool choice, as they were asked for")
    prompt_tokens: Count = Field(None, description="unknown where the server did not count")
    completion_tokens: Count = Field(None, description="of all choices of the request")
    latency_ms: float = 0.0
    finish_reason: str = "stop"
    served_at: float = Field(description="Unix seconds, UTC")
    assigned_at: float | None = Field(
        None,
        exclude_if=_is_none,
        description="when the route chose the arm, Unix seconds, if not for this: for an earlier turn, or the first of "
        "several choices",
    )
    parent_interaction_id: str | None = Field(None, description="the answer that this one should replace")
    candidate_group_id: str | None = Field(None, description="shared by answers shown side by side to choose from")
    propensity: float | None = Field(None, description="chance, 0 to 1, that this answer was the one shown")
    consent_training: Consent = Field("unknown", description="only granted trains")
    retention_until: float | None = Field(None, description="Unix seconds, UTC, until which it may be trained on")
    # What an answer may hold beside its text. `exclude_if` keeps them out of the lines of all others.
    tools: list[dict[str, Any]] | None = Field(None, exclude_if=_is_none, description="the tools that were offered")
    tool_calls: list[dict[str, Any]] | None = Field(None, exclude_if=_is_none, description="calls in the answer")
    refusal: str | None = Field(None, exclude_if=_is_none, description="said in place of an answer")
    reasoning: str | None = Field(None, exclude_if=_is_none, description="thought before the answer, no part of it")
    task: str | None = Field(None, exclude_if=_is_none, description="a front end's own request: title, tags, ...")
    completion_id: str | None = Field(None, exclude_if=_is_none, description="the answer's id as the client saw it")


class Feedback(Event):
    """One signal on an interaction.

    `value` by kind: thumb -1 or 1; rating 1 to 5; correction the corrected text; preference the id of the interaction
    that lost against `interaction_id` (with `is_tie`, neither won); comment the text; implicit kinds their measure.
    Events are never changed: to take a vote back, send another whose `supersedes_id` names it, with the new value or
    with `is_retracted`.
    """

    feedback_id: str = Field(min_length=1, description="also the idempotency key: a repeated id counts once")
    interaction_id: str = Field(min_length=1)
    subject_id: str = Field(description="who voted, pseudonymous")
    kind: Kind
    value: float | str
    is_tie: bool = False
    source: Source = "human"
    score_name: str | None = Field(None, description="tells several scores of one kind apart: helpful, safe, …")
    created_at: float = Field(description="Unix seconds, UTC")
    comment: str | None = Field(None, description="free text that came with the value")
    tags: list[str] | None = Field(None, exclude_if=_is_none, description="short words that came with the value")
    supersedes_id: str | None = Field(None, description="the feedback that this one replaces")
    is_retracted: bool = Field(False, description="takes back the feedback in `supersedes_id`, or this one")
    account_age_days: float | None = Field(None, description="age of the subject's account at the time")
    # The router copies these three from the answer's token. They are declared so that its votes take the fast decoder;
    # `exclude_if` keeps them out of other producers' lines, whose bytes name their landing files.
    tenant: str | None = Field(None, exclude_if=_is_none, description="the interaction's")
    adapter_digest: str | None = Field(None, exclude_if=_is_none, description="the interaction's")
    arm: str | None = Field(None, exclude_if=_is_none, description="the interaction's")
