"""Interactions and feedback to triplets. Pure: tables in, tables out."""

from dataclasses import dataclass

import polars as pl

from ratchet.clock import DAY_S, FIRST_SANE_S, LAST_SANE_S
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, TRIPLETS, Table

# What a preference's triplet tells of the answer that lost, and that answer's own column.
OTHER = {
    "other_response": "response",
    "other_finish_reason": "finish_reason",
    "other_consent": "consent_training",
    "other_retention_until": "retention_until",
}


def first_of_each(events: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Each event once: the first by time, then by content, whatever file it came in."""
    rest = [name for name in table.schema if name not in (COLLECTION, table.id, table.time)]
    return events.sort([table.time, table.id, *rest]).unique(subset=table.id, keep="first", maintain_order=True)


def newest_time(times: pl.Series) -> float:
    """The latest sane time, Unix seconds; 0 if there is none."""
    return float(times.filter(times.is_between(FIRST_SANE_S, LAST_SANE_S)).max() or 0.0)  # type: ignore[arg-type]


def may_still_join(newest: float, late_days: float) -> pl.Expr:
    """Feedback that is young enough to go on waiting for its interaction."""
    return pl.col("created_at").is_between(newest - late_days * DAY_S, LAST_SANE_S)


def needs(feedback: pl.DataFrame) -> pl.DataFrame:
    """Ids of the interactions that feedback is on or, if it is a preference, against; each beside the feedback's own.

    Columns: `interaction_id`, and `on`, the interaction by which the feedback is joined.
    """
    own = feedback.select(INTERACTIONS.id, on=INTERACTIONS.id)
    is_against = (pl.col("kind") == "preference") & pl.col("value_text").is_not_null()
    other = feedback.filter(is_against).select(pl.col("value_text").alias(INTERACTIONS.id), on=INTERACTIONS.id)
    return pl.concat([own, other])


@dataclass(frozen=True)
class Joined:
    """Triplets, the feedback that waits for an interaction, and how much waited too long."""

    triplets: pl.DataFrame
    waiting: pl.DataFrame
    orphans: int


def join_triplets(feedback: pl.DataFrame, interactions: pl.DataFrame, may_wait: pl.Expr) -> Joined:
    """One triplet for each feedback whose interactions are known; the rest waits or, if `may_wait` is false, is lost.

    A preference needs both interactions. One whose value is no text names no loser: it joins without
    `other_response`, for validation to name.
    """
    served = interactions.drop("extra", "params", COLLECTION, strict=False).rename({"subject_id": "asked_by"})
    others = interactions.select(
        value_text=pl.col(INTERACTIONS.id), **{name: pl.col(own) for name, own in OTHER.items()}
    )
    is_preference = pl.col("kind") == "preference"
    found = (
        feedback.join(served, on=INTERACTIONS.id, how="left")
        .join(others, on="value_text", how="left")
        .with_columns(
            *(pl.when(is_preference).then(name).alias(name) for name in OTHER),
            triplet_id=pl.col(FEEDBACK.id),
        )
    )
    lacks_other = is_preference & pl.col("value_text").is_not_null() & pl.col("other_response").is_null()
    is_complete = pl.col("response").is_not_null() & ~lacks_other
    columns = [name for name in TRIPLETS.schema if name != COLLECTION]
    lacking = found.filter(~is_complete)
    waiting = lacking.filter(may_wait).select(feedback.columns)
    triplets = found.filter(is_complete).select(columns).sort(TRIPLETS.id)
    return Joined(triplets, waiting, lacking.height - waiting.height)
