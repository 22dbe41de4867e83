"""What each triplet says, before anything is counted: its prompt, its age, and why it says nothing, if it does.

Signals, in falling order of what they tell: a correction (what it should have been), a preference (which of two),
a vote (thumb or rating: good or not). Implicit signals make no row.
"""

import difflib
import json

import polars as pl

from ratchet.datasets.weights import recency
from ratchet.digest import canonical_json
from ratchet.events import EXPLICIT

SILENT = (
    "superseded",  # the same subject judged the same thing again, later
    "implicit_only",
    "neutral_rating",
    "unchanged_correction",
    "identical_answers",  # a preference between two equal texts
    "overruled",  # an up vote on an answer that somebody corrected
)
NEUTRAL_RATING = 3  # of 1 to 5
MIN_EDIT = 0.02  # an edit of a smaller share of the words is a slip of the keyboard
VOTES = ("thumb", "rating")


def with_prompts(triplets: pl.DataFrame) -> pl.DataFrame:
    """Triplets with `prompt`: their messages as canonical JSON, so that equal chats are equal strings."""
    prompts = {messages: canonical_json(json.loads(messages)).decode() for messages in triplets["messages"].unique()}
    return triplets.with_columns(prompt=pl.col("messages").replace_strict(prompts, return_dtype=pl.String))


def judge(triplets: pl.DataFrame, half_life_days: float) -> pl.DataFrame:
    """Each triplet with `edit` (share of words changed), `recency`, `is_up`, and `reason` where it says nothing."""
    kind = pl.col("kind")
    edits = [
        edit_share(before, after) if kind == "correction" else None
        for kind, before, after in triplets.select("kind", "response", "value_text").iter_rows()
    ]
    newest = triplets.select(pl.col("created_at").max().fill_null(0.0)).item()
    judged = triplets.with_columns(
        edit=pl.Series(edits, dtype=pl.Float64),
        recency=recency(pl.col("created_at"), newest, half_life_days),
        is_up=pl.col("value_num") > pl.when(kind == "rating").then(NEUTRAL_RATING).otherwise(0),
        is_superseded=_is_superseded(),
    )
    judged = judged.with_columns(
        reason=pl.when("is_superseded").then(pl.lit("superseded"))
        .when(~kind.is_in(EXPLICIT)).then(pl.lit("implicit_only"))
        .when((kind == "rating") & (pl.col("value_num") == NEUTRAL_RATING)).then(pl.lit("neutral_rating"))
        .when(pl.col("edit") < MIN_EDIT).then(pl.lit("unchanged_correction"))
        .when((kind == "preference") & (pl.col("response") == pl.col("other_response")))
        .then(pl.lit("identical_answers"))
    )  # fmt: skip
    return _overrule(judged)


def edit_share(before: str, after: str) -> float:
    """Share of words that changed, 0 to 1: one minus Ratcliff and Obershelp's similarity over words."""
    return 1 - difflib.SequenceMatcher(None, before.split(), after.split(), autojunk=False).ratio()


def _is_superseded() -> pl.Expr:
    # A preference is about two answers, so one subject may hold several on one answer, one for each rival.
    rival = pl.when(pl.col("kind") == "preference").then("value_text").otherwise(pl.lit(""))
    judged = [pl.min_horizontal("interaction_id", rival), pl.max_horizontal("interaction_id", rival)]
    latest = pl.col("triplet_id").sort_by("created_at", "triplet_id").last()
    return pl.col("triplet_id") != latest.over("subject_id", "kind", *judged)


def _overrule(judged: pl.DataFrame) -> pl.DataFrame:
    """A correction beats the up votes on the same answer: somebody took the trouble to say what is wrong."""
    corrections = judged.filter(pl.col("reason").is_null(), pl.col("kind") == "correction")
    corrected = corrections.select("prompt", "response", is_corrected=True).unique()
    is_overruled = pl.col("kind").is_in(VOTES) & pl.col("is_up") & pl.col("is_corrected")
    return judged.join(corrected, on=["prompt", "response"], how="left", maintain_order="left").with_columns(
        reason=pl.coalesce("reason", pl.when(is_overruled).then(pl.lit("overruled")))
    )
