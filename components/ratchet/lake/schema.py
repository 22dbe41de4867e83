"""The schemas of the lake's tables, and the conversion of events to their rows. Pure."""

from dataclasses import dataclass
from typing import Any

from ratchet.digest import canonical_text
from ratchet.events import Feedback, Interaction

COLLECTION = "collection"
KEPT_IN_EXTRA = ("tenant", "adapter_digest", "arm", "tags")
"""Declared fields of feedback without a column: mostly, the interaction that the vote is joined to has it."""
JSON_COLUMNS = ("tools", "tool_calls")  # of interactions; null or a list of objects, beside `messages` and `params`
TURN = "turn"
"""The digest by which a later turn finds this one; null for an interaction whose conversation its producer named."""


@dataclass(frozen=True)
class Table:
    """A Delta table: its key in the lake, its id and time columns, its event type, and its columns with their types."""

    key: str
    id: str
    time: str
    event_type: str
    schema: dict[str, type]


INTERACTIONS = Table(
    "tables/interactions",
    "interaction_id",
    "served_at",
    "interaction",
    {
        "interaction_id": str, "conversation_id": str, "subject_id": str, "tenant": str, "messages": str,
        "response": str, "base_model": str, "adapter_name": str, "adapter_version": str, "adapter_digest": str,
        "arm": str, "params": str, "prompt_tokens": int, "completion_tokens": int, "latency_ms": float,
        "finish_reason": str, "served_at": float, "parent_interaction_id": str, "candidate_group_id": str,
        "propensity": float, "consent_training": str, "retention_until": float,
        "tools": str, "tool_calls": str, "refusal": str, "reasoning": str, "task": str, "completion_id": str,
        TURN: int, "extra": str, COLLECTION: int,
    },
)  # fmt: skip
FEEDBACK = Table(
    "tables/feedback",
    "feedback_id",
    "created_at",
    "feedback",
    {
        "feedback_id": str, "interaction_id": str, "subject_id": str, "kind": str, "value_num": float,
        "value_text": str, "is_tie": bool, "source": str, "score_name": str, "created_at": float, "comment": str,
        "supersedes_id": str, "is_retracted": bool, "account_age_days": float, "extra": str, COLLECTION: int,
    },
)  # fmt: skip
TRIPLETS = Table(
    "tables/triplets",
    "triplet_id",
    "created_at",
    "triplet",
    {
        "triplet_id": str, "interaction_id": str, "conversation_id": str, "subject_id": str, "tenant": str,
        "messages": str, "response": str, "kind": str, "value_num": float, "value_text": str, "is_tie": bool,
        "other_response": str, "finish_reason": str, "other_finish_reason": str, "beyond_text": str,
        "other_beyond_text": str, "source": str, "score_name": str, "created_at": float, "served_at": float,
        "base_model": str, "adapter_name": str, "adapter_version": str, "adapter_digest": str, "arm": str,
        "parent_interaction_id": str, "candidate_group_id": str, "propensity": float,
        "consent_training": str, "retention_until": float, "other_consent": str, "other_retention_until": float,
        "comment": str, "supersedes_id": str, "is_retracted": bool, "account_age_days": float, COLLECTION: int,
    },
)  # fmt: skip


def interaction_row(event: Interaction) -> dict[str, Any]:
    """Return the event as a row of the interactions table; undeclared fields go to `extra`, as JSON."""
    row = event.model_dump(mode="json", exclude={"messages", "params", *JSON_COLUMNS, *(event.model_extra or {})})
    lists = {name: to_json(value) for name in JSON_COLUMNS if (value := getattr(event, name)) is not None}
    messages = [message.model_dump(mode="json") for message in event.messages]
    return {
        **row,
        **lists,
        "messages": to_json(messages),
        "params": to_json(event.params),
        "served_at": event.served_at,
        "latency_ms": event.latency_ms,
        "propensity": event.propensity,
        "retention_until": event.retention_until,
        "extra": to_json(event.model_extra or {}),
    }


def feedback_row(event: Feedback) -> dict[str, Any]:
    """Return the event as a row of the feedback table: `value` goes to `value_num` or `value_text` by its type.

    Undeclared fields go to `extra`, as JSON, and so do those of `KEPT_IN_EXTRA` that are set.
    """
    row = event.model_dump(exclude={"value", *KEPT_IN_EXTRA, *(event.model_extra or {})})
    kept = {name: value for name in KEPT_IN_EXTRA if (value := getattr(event, name)) is not None}
    is_text = isinstance(event.value, str)
    return {
        **row,
        "value_num": None if is_text else event.value,
        "value_text": event.value if is_text else None,
        "extra": to_json((event.model_extra or {}) | kept),
    }


def to_json(value: Any) -> str:
    """Return canonical JSON. NaN and infinity, which `params` may hold, are written as Python spells them."""
    return canonical_text(value, allow_nan=True)
