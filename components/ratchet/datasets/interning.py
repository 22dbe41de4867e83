"""Intern triplets: replace ids and texts by integer keys and hashes, valid within one build.

Everything is decided on keys; `materialize` puts the texts back. A text's key is the index of its first occurrence in
the order of triplet ids, so keys do not depend on the order of the rows, and sorting by them is a total order.
"""

from dataclasses import dataclass

import polars as pl

TEXTS = ("response", "value_text", "other_response")
WHOLE = "stop"  # the finish reason of a complete answer; servers have ever new ones for the others
COLUMNS = {
    "triplet_id": pl.String, "interaction_id": pl.String, "conversation_id": pl.String, "subject_id": pl.String,
    "messages": pl.String, "response": pl.String, "kind": pl.String, "value_num": pl.Float64, "value_text": pl.String,
    "is_tie": pl.Boolean, "other_response": pl.String, "finish_reason": pl.String, "other_finish_reason": pl.String,
    "created_at": pl.Float64, "parent_interaction_id": pl.String, "propensity": pl.Float64,
    "consent_training": pl.String, "retention_until": pl.Float64, "other_consent": pl.String,
    "other_retention_until": pl.Float64, "tenant": pl.String, "score_name": pl.String,
    "comment": pl.String, "supersedes_id": pl.String,
    "is_retracted": pl.Boolean, "account_age_days": pl.Float64, "adapter_digest": pl.String,
    "injection_risk": pl.Int64, "beyond_text": pl.String, "other_beyond_text": pl.String,
}  # fmt: skip


@dataclass(frozen=True)
class Interned:
    """Triplets in order of their ids, and their texts by key.

    `keys` has one row for each triplet: `row` (its index), `prompt`, `answer`, `other` (the answer that lost to it),
    `target` (the corrected text), and the columns that eligibility is decided by.
    """

    keys: pl.DataFrame
    triplet_ids: pl.Series
    conversations: pl.Series
    tenants: pl.Series
    prompts: pl.Series
    answers: pl.Series


def intern(triplets: pl.DataFrame) -> Interned:
    """Intern triplets that have any of `COLUMNS`; missing ones are null.

    Prompts are equal if their `messages` are, which the lake keeps as canonical JSON.
    """
    rows = triplets.with_columns(
        pl.lit(None, dtype=kind).alias(name) for name, kind in COLUMNS.items() if name not in triplets.columns
    )
    if not rows["triplet_id"].is_sorted():
        rows = rows.sort("triplet_id")
    is_preference, is_correction = pl.col("kind") == "preference", pl.col("kind") == "correction"
    texts = rows.select(
        "response",
        pl.when(is_correction).then("value_text").alias("value_text"),
        pl.when(is_preference).then("other_response").alias("other_response"),
    )
    answers = pl.concat([texts[name].alias("text") for name in TEXTS], rechunk=False)
    first, num = first_equal(answers), len(rows)
    answer, target, other = first[:num], first[num : 2 * num], first[2 * num :]
    keys = rows.select(
        pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"),
        pl.lit(first_equal(rows["messages"])).alias("prompt"),
        answer.alias("answer"),
        other.alias("other"),
        target.alias("target"),
        pl.col("subject_id").hash().alias("subject"),
        pl.col("interaction_id").hash().alias("interaction"),
        pl.when(pl.col("parent_interaction_id").is_not_null())
        .then(pl.col("parent_interaction_id").hash())
        .alias("parent"),
        pl.when(is_preference).then(pl.col("value_text").hash()).otherwise(pl.lit(0, dtype=pl.UInt64)).alias("rival"),
        pl.col("score_name").fill_null("").hash().alias("score"),
        pl.when(pl.col("comment").is_not_null())
        .then(pl.col("comment").str.to_lowercase().str.strip_chars())
        .alias("comment"),
        "kind",
        "value_num",
        pl.col("is_tie").fill_null(False),
        "created_at",
        "propensity",
        "consent_training",
        "retention_until",
        "other_consent",
        "other_retention_until",
        pl.col("is_retracted").fill_null(False),
        "supersedes_id",
        "account_age_days",
        pl.col("adapter_digest").hash().alias("adapter"),
        (pl.col("injection_risk").fill_null(0) > 0).alias("is_risky"),
        "beyond_text",
        "other_beyond_text",
        (pl.col("finish_reason") != WHOLE).fill_null(False).alias("is_cut"),
        (pl.col("other_finish_reason") != WHOLE).fill_null(False).alias("is_other_cut"),
    )
    return Interned(keys, rows["triplet_id"], rows["conversation_id"], rows["tenant"], rows["messages"], answers)


def first_equal(texts: pl.Series) -> pl.Series:
    """Return for each text the index of the first equal text; null for null."""
    known = pl.DataFrame({"text": texts, "hash": texts.hash()}).with_row_index("place").drop_nulls("text")
    known = known.with_columns(first=pl.col("place").first().over("hash"))
    again = known.filter(pl.col("first") != pl.col("place"))
    assert (texts.gather(again["first"]) == again["text"]).all(), "two texts with one 64-bit hash"
    places = pl.DataFrame({"place": pl.int_range(len(texts), dtype=pl.UInt32, eager=True)})
    return places.join(known.select("place", "first"), on="place", how="left", maintain_order="left")["first"]
