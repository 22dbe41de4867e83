"""Triplets in a line each, for tests: `frame(thumb("ann", "Paris."), rating("bob", "Lyon.", 2))`."""

from itertools import count
from typing import Any

import polars as pl

from ratchet.digest import canonical_json

SCHEMA = {
    "triplet_id": pl.String, "interaction_id": pl.String, "conversation_id": pl.String, "subject_id": pl.String,
    "tenant": pl.String, "messages": pl.String, "response": pl.String, "kind": pl.String, "value_num": pl.Float64,
    "value_text": pl.String, "is_tie": pl.Boolean, "other_response": pl.String,
    "finish_reason": pl.String, "other_finish_reason": pl.String, "source": pl.String,
    "created_at": pl.Float64, "served_at": pl.Float64, "base_model": pl.String, "adapter_name": pl.String,
    "adapter_version": pl.String, "adapter_digest": pl.String, "arm": pl.String,
    "parent_interaction_id": pl.String, "propensity": pl.Float64, "consent_training": pl.String,
    "retention_until": pl.Float64, "other_consent": pl.String, "other_retention_until": pl.Float64,
    "score_name": pl.String, "comment": pl.String, "supersedes_id": pl.String, "is_retracted": pl.Boolean,
    "account_age_days": pl.Float64, "collection": pl.Int64,
}  # fmt: skip
QUESTION = "What is the capital of France?"
START_S = 1_700_000_000.0
DAY_S = 86_400.0

Triplet = dict[str, Any]
_numbers = count()


def triplet(subject: str, answer: str, kind: str, *, prompt: str = QUESTION, days: float = 0, **values: Any) -> Triplet:
    """One triplet; its interaction is the prompt and answer, its conversation the prompt, unless `values` say so."""
    created_at = START_S + days * DAY_S
    return {
        "triplet_id": f"t{next(_numbers):06d}",
        "interaction_id": f"{prompt}|{answer}",
        "conversation_id": f"about {prompt}",
        "subject_id": subject,
        "tenant": "default",
        "messages": canonical_json([{"role": "user", "content": prompt}]).decode(),
        "response": answer,
        "kind": kind,
        "value_num": None,
        "value_text": None,
        "is_tie": False,
        "other_response": None,
        "finish_reason": "stop",
        "other_finish_reason": None,
        "source": "human",
        "created_at": created_at,
        "served_at": created_at - 60,
        "base_model": "tiny",
        "adapter_name": "base",
        "adapter_version": "0",
        "adapter_digest": "base",
        "arm": "primary",
        "consent_training": "granted",
        "collection": 1,
        **values,
    }


def thumb(subject: str, answer: str, value: float = 1, **more: Any) -> Triplet:
    return triplet(subject, answer, "thumb", value_num=value, **more)


def rating(subject: str, answer: str, value: float, **more: Any) -> Triplet:
    return triplet(subject, answer, "rating", value_num=value, **more)


def correction(subject: str, answer: str, edit: str, **more: Any) -> Triplet:
    return triplet(subject, answer, "correction", value_text=edit, **more)


def preference(subject: str, winner: str, loser: str, *, prompt: str = QUESTION, **more: Any) -> Triplet:
    values = {"value_text": f"{prompt}|{loser}", "other_response": loser, "other_consent": "granted", **more}
    return triplet(subject, winner, "preference", prompt=prompt, **values)


def frame(*triplets: Triplet) -> pl.DataFrame:
    return pl.DataFrame(list(triplets), schema=SCHEMA)
