"""What the lake is made of: interactions (served answers) and feedback (one signal on one of them).

These models check types only. Whether a rating of 11 or an empty answer is acceptable is the contract's business
(`ratchet.validation`), which quarantines with a reason instead of refusing the line.
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
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Event(BaseModel):
    # Unknown fields are kept: a producer may know more than we do.
    model_config = ConfigDict(frozen=True, extra="allow")


class Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    role: str
    content: str


class Interaction(Event):
    """One served answer."""

    interaction_id: str = Field(min_length=1)
    conversation_id: str
    subject_id: str = Field(description="who asked, pseudonymous")
    tenant: str = "default"
    messages: list[Message] = Field(description="the prompt, chat format")
    response: str
    base_model: str
    adapter_name: str = "base"
    adapter_version: str = "0"
    adapter_digest: str = BASE_DIGEST
    arm: str = "primary"
    params: dict[str, Any] = {}
    prompt_tokens: Int64 = 0
    completion_tokens: Int64 = 0
    latency_ms: float = 0.0
    finish_reason: str = "stop"
    served_at: float = Field(description="Unix seconds, UTC")
    parent_interaction_id: str | None = Field(None, description="the answer that this one was asked to replace")
    candidate_group_id: str | None = Field(None, description="answers shown together, to be chosen among, share one")
    propensity: float | None = Field(None, description="chance, 0 to 1, that this answer was the one shown")
    consent_training: Consent = Field("unknown", description="only granted trains")
    retention_until: float | None = Field(None, description="Unix seconds, UTC, after which it trains no more")


class Feedback(Event):
    """One signal on an interaction.

    `value` by kind: thumb ±1; rating 1 to 5; correction the text that it should have been; preference the id of the
    interaction that lost against `interaction_id` (with `is_tie`, neither did); comment the text; implicit kinds their
    measure. Events are never changed: to take a vote back, send another whose `supersedes_id` names it, with the new
    value or with `is_retracted`.
    """

    feedback_id: str = Field(min_length=1, description="also the idempotency key: seen twice, counted once")
    interaction_id: str = Field(min_length=1)
    subject_id: str = Field(description="who judged, pseudonymous")
    kind: Kind
    value: float | str
    is_tie: bool = False
    source: Source = "human"
    score_name: str | None = Field(None, description="which of several opinions of one kind: helpful, safe, well put")
    created_at: float = Field(description="Unix seconds, UTC")
    comment: str | None = Field(None, description="what was said beside the value")
    supersedes_id: str | None = Field(None, description="the feedback that this one takes the place of")
    is_retracted: bool = Field(False, description="the subject takes back what `supersedes_id` names, or this")
    account_age_days: float | None = Field(None, description="age of the subject's account at the time")
