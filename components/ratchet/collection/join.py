"""Join feedback to interactions, into triplets. Pure: tables in, tables out."""

from dataclasses import dataclass

import polars as pl

from ratchet.clock import DAY_S, FIRST_SANE_S, LAST_SANE_S
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, TRIPLETS, Table

# A preference's triplet has these columns of the answer that lost, from that interaction's own columns.
OTHER = {
    "other_response": "response",
    "other_finish_reason": "finish_reason",
    "other_consent": "consent_training",
    "other_retention_until": "retention_until",
}


def first_of_each(events: pl.DataFrame, table: Table) -> pl.DataFrame:
    """Keep the first event of each id, by time, then by content: the order of the files does not count."""
    rest = [name for name in table.schema if name not in (COLLECTION, table.id, table.time)]
    return events.sort([table.time, table.id, *rest]).unique(subset=table.id, keep="first", maintain_order=True)


def newest_time(times: pl.Series) -> float:
    """Return the latest sane time, Unix seconds; 0 if there is none."""
    return float(times.filter(times.is_between(FIRST_SANE_S, LAST_SANE_S)).max() or 0.0)  # type: ignore[arg-type]


def may_still_join(newest: float, late_days: float) -> pl.Expr:
    """Return where feedback is young enough to keep waiting for its interaction."""
    return pl.col("created_at").is_between(newest - late_days * DAY_S, LAST_SANE_S)


def needed_interactions(feedback: pl.DataFrame) -> pl.DataFrame:
    """Return the interactions that feedback needs: its own and, for a preference, the one that lost.

    Columns: `interaction_id`, and `on`, the interaction that the feedback itself names.
    """
    own = feedback.select(INTERACTIONS.id, on=INTERACTIONS.id)
    is_against = (pl.col("kind") == "preference") & pl.col("value_text").is_not_null()
    other = feedback.filter(is_against).select(pl.col("value_text").alias(INTERACTIONS.id), on=INTERACTIONS.id)
    return pl.concat([own, other])


@dataclass(frozen=True)
class Joined:
    """Triplets, the feedback that still waits for an interaction, and the count of what waited too long."""

    triplets: pl.DataFrame
    waiting: pl.DataFrame
    orphans: int


def join_triplets(feedback: pl.DataFrame, interactions: pl.DataFrame, may_wait: pl.Expr) -> Joined:
    """Make one triplet of each feedback whose interactions are known; the rest waits where `may_wait`, else is dropped.

    A preference needs both interactions. If its value is not text, it names no loser: it is joined without
    `other_response`, and validation rejects it.
    """
    served = interactions.drop("extra", "params", COLLECTION, strict=False).rename({"subject_id": "asked_by"})
    others = interactions.select(
        value_text=pl.col(INTERACTIONS.id), **{name: pl.col(own) for name, own in OTHER.items()}
    )
    is_preference = pl.col("kind") == "preference"
    joined = (
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
    lacking = joined.filter(~is_complete)
    waiting = lacking.filter(may_wait).select(feedback.columns)
    triplets = joined.filter(is_complete).select(columns).sort(TRIPLETS.id)
    return Joined(triplets, waiting, lacking.height - waiting.height)
