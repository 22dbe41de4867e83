"""What the lake is made of: interactions (served answers) and feedback (one signal on one of them).

These models check types only. Whether a rating of 11 or an empty answer is acceptable is the contract's business
(`ratchet.validation`), which quarantines with a reason instead of refusing the line.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Kind = Literal[
    "thumb", "rating", "correction", "preference", "regenerate", "copy", "accept", "dwell_ms", "click", "abandon"
]
EXPLICIT: tuple[Kind, ...] = ("thumb", "rating", "correction", "preference")
Source = Literal["human", "model", "code"]
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
    adapter_digest: str = "base"
    arm: str = "primary"
    params: dict[str, Any] = {}
    prompt_tokens: Int64 = 0
    completion_tokens: Int64 = 0
    latency_ms: float = 0.0
    finish_reason: str = "stop"
    served_at: float = Field(description="Unix seconds, UTC")


class Feedback(Event):
    """One signal on an interaction.

    `value` by kind: thumb ±1; rating 1 to 5; correction the text that it should have been; preference the id of the
    interaction that lost against `interaction_id` (with `is_tie`, neither did); implicit kinds their measure.
    """

    feedback_id: str = Field(min_length=1, description="also the idempotency key: seen twice, counted once")
    interaction_id: str = Field(min_length=1)
    subject_id: str = Field(description="who judged, pseudonymous")
    kind: Kind
    value: float | str
    is_tie: bool = False
    source: Source = "human"
    created_at: float = Field(description="Unix seconds, UTC")
