"""Join feedback to interactions, into triplets. Pure: tables in, tables out."""

from dataclasses import dataclass

import polars as pl

from ratchet.clock import DAY_S, FIRST_SANE_S, LAST_SANE_S
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, TRIPLETS, Table
from ratchet.turns import ANONYMOUS

OTHER_FORMATS = (  # vLLM's, and Anthropic's
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "output_config",
)  # fmt: skip
KEPT_ELSEWHERE = ("previous_response_id", "conversation")  # of /v1/responses: the server adds earlier turns
ENDS_WITH_ASSISTANT = r'"role":"assistant"[^{}]*\}\]$'
# A preference's triplet has these columns of the answer that lost, from that interaction's own columns.
OTHER = {
    "other_response": "response",
    "other_finish_reason": "finish_reason",
    "other_consent": "consent_training",
    "other_retention_until": "retention_until",
    "other_beyond_text": "beyond_text",
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


def _voter() -> pl.Expr:
    """Return who voted: somebody without a name who voted on an answer to somebody without a name is its chat's."""
    subject, of_tenant = pl.col("subject_id"), pl.col("tenant") + f"/{ANONYMOUS}"
    is_theirs = subject == pl.col("asked_by")
    return (
        pl.when(is_theirs & subject.str.starts_with(of_tenant))
        .then(of_tenant + pl.col("conversation_id"))
        .when(is_theirs & subject.str.starts_with(ANONYMOUS))
        .then(ANONYMOUS + pl.col("conversation_id"))
        .otherwise("subject_id")
    )


def with_beyond_text(interactions: pl.DataFrame) -> pl.DataFrame:
    """Add `beyond_text`: why prompt and answer are not what was said if they are read as texts; null if they are.

    A loss on the text would teach what nobody liked: half of an answer, or an answer to half of a question.
    """
    messages = pl.col("messages")
    format_type = pl.col("params").str.json_path_match("$.response_format.type")
    other_formats = [pl.col("params").str.json_path_match(f"$.{name}") for name in OTHER_FORMATS]
    imposed = (format_type != "text").fill_null(False) | pl.coalesce(other_formats).is_not_null()
    kept_elsewhere = [pl.col("params").str.json_path_match(f"$.{name}") for name in KEPT_ELSEWHERE]
    return interactions.with_columns(
        beyond_text=pl.when(pl.col("tool_calls").is_not_null())
        .then(pl.lit("tool_call"))
        .when(pl.col("refusal").is_not_null())
        .then(pl.lit("refusal"))
        .when(pl.col("finish_reason") == "content_filter")
        .then(pl.lit("filtered"))
        .when(imposed)
        .then(pl.lit("imposed_format"))
        .when(pl.coalesce(kept_elsewhere).is_not_null())
        .then(pl.lit("unseen_history"))
        .when(messages.str.contains('"parts":[', literal=True))
        .then(pl.lit("media"))
        .when(messages.str.contains(ENDS_WITH_ASSISTANT))
        .then(pl.lit("continuation"))
    )


def join_triplets(feedback: pl.DataFrame, interactions: pl.DataFrame, may_wait: pl.Expr) -> Joined:
    """Make one triplet of each feedback whose interactions are known; the rest waits where `may_wait`, else is dropped.

    A preference needs both interactions. If its value is not text, it names no loser: it is joined without
    `other_response`, and validation rejects it.
    """
    interactions = with_beyond_text(interactions)
    served = interactions.select(
        pl.col("subject_id").alias("asked_by"),
        *(name for name in INTERACTIONS.schema if name in TRIPLETS.schema and name not in ("subject_id", COLLECTION)),
        "beyond_text",
    )
    others = interactions.select(
        "tenant", value_text=pl.col(INTERACTIONS.id), **{name: pl.col(own) for name, own in OTHER.items()}
    )
    is_preference = pl.col("kind") == "preference"
    joined = (
        feedback.join(served, on=INTERACTIONS.id, how="left")
        .join(others, on=["value_text", "tenant"], how="left")  # nobody learns of another tenant's answer
        .with_columns(
            *(pl.when(is_preference).then(name).alias(name) for name in OTHER),
            triplet_id=pl.col(FEEDBACK.id),
            subject_id=_voter(),
        )
    )
    lacks_other = is_preference & pl.col("value_text").is_not_null() & pl.col("other_response").is_null()
    is_complete = pl.col("response").is_not_null() & ~lacks_other
    columns = [name for name in TRIPLETS.schema if name != COLLECTION]
    lacking = joined.filter(~is_complete)
    waiting = lacking.filter(may_wait).select(feedback.columns)
    triplets = joined.filter(is_complete).select(columns).sort(TRIPLETS.id)
    return Joined(triplets, waiting, lacking.height - waiting.height)
