"""Decide which triplets are eligible: consented, not expired, not taken back or superseded, and informative.

Signals, most informative first: a correction, a preference, a vote (thumb or rating), and implicit signals, which only
corroborate. Everything works on interned keys (`interning.intern`).
"""

import numpy as np
import polars as pl

from ratchet.config import BuildDatasets
from ratchet.datasets.interning import Interned
from ratchet.datasets.shingles import SLICE_TEXTS, TOKENS, hash_words
from ratchet.datasets.weights import exposure, recency
from ratchet.events import EXPLICIT

# Prompt or answer hold more than the texts that training renders (`collection.join.with_beyond_text`).
BEYOND_TEXT = (
    "tool_call",  # the answer calls a tool; a text beside the call is not all of it
    "refusal",  # the model refused in the field that is made for it
    "filtered",  # a filter ended the answer
    "imposed_format",  # a schema that the prompt does not show shaped the answer
    "unseen_history",  # the server kept the chat's earlier turns, so the prompt is not all that the model saw
    "media",  # the prompt has an image, a sound or a file
    "continuation",  # the answer goes on where the prompt's last message, the assistant's own, ends
)
INELIGIBLE_REASONS = (
    "no_consent",  # anything but granted
    "expired",  # kept longer than its retention allows
    *BEYOND_TEXT,
    "retracted",
    "superseded",  # the same subject judged the same thing again, later
    "duplicate",  # the same subject judged an equal answer to an equal prompt again, later
    "comment_only",
    "neutral_rating",
    "unchanged_correction",
    "identical_answers",  # a preference between two equal texts
    "overruled",  # an up vote on an answer that was corrected
)
NEUTRAL_RATING = 3  # of 1 to 5
MIN_EDIT = 0.02  # an edit of a smaller share of the words is a typo
VOTES = ("thumb", "rating")
WORD_BITS = 47  # the rest holds the place of one of SLICE_TEXTS texts
# Columns that only this module reads; dropped afterwards.
CONSUMED_COLUMNS = (
    "rival", "score", "propensity", "consent_training", "other_consent", "retention_until", "other_retention_until",
    "is_retracted", "supersedes_id", "beyond_text", "other_beyond_text",
)  # fmt: skip


def assess_eligibility(
    triplets: Interned, settings: BuildDatasets, expired_through: float | None = None
) -> pl.DataFrame:
    """Add to the keys `edit` (share of words changed), `recency`, `exposure`, `is_up`, and `reason` if ineligible.

    Triplets whose retention ends at `expired_through` (Unix seconds) or earlier have expired. `CONSUMED_COLUMNS` are
    dropped.
    """
    kind = pl.col("kind")
    newest = triplets.keys.select(pl.col("created_at").max().fill_null(0.0)).item()
    keys = _resolved(triplets)
    corrections = keys.filter(kind == "correction")
    before, after = (triplets.answers.gather(corrections[name]) for name in ("answer", "target"))
    edits = corrections.select("row").with_columns(edit=pl.Series(edit_shares(before, after), dtype=pl.Float64))
    keys = keys.join(edits, on="row", how="left", maintain_order="left").with_columns(
        recency=recency(pl.col("created_at"), newest, settings.half_life_days),
        exposure=exposure(pl.col("propensity"), settings.max_inverse_propensity),
        is_up=pl.col("value_num") > pl.when(kind == "rating").then(NEUTRAL_RATING).otherwise(0),
    )
    is_about_two = kind == "preference"  # it teaches from both answers, so both need consent
    is_refused = _not_granted("consent_training") | (is_about_two & _not_granted("other_consent"))
    ends = pl.min_horizontal("retention_until", "other_retention_until")
    judged = keys.with_columns(
        reason=pl.when(is_refused)
        .then(pl.lit("no_consent"))
        .when(pl.lit(False) if expired_through is None else ends <= expired_through)
        .then(pl.lit("expired"))
        .when(pl.coalesce("beyond_text", "other_beyond_text").is_not_null())
        .then(pl.coalesce("beyond_text", "other_beyond_text"))
        .when(pl.col("reason").is_not_null())
        .then("reason")
        .when(kind == "comment")
        .then(pl.lit("comment_only"))
        .when((kind == "rating") & (pl.col("value_num") == NEUTRAL_RATING))
        .then(pl.lit("neutral_rating"))
        .when(pl.col("edit") < MIN_EDIT)
        .then(pl.lit("unchanged_correction"))
        .when(is_about_two & (pl.col("answer") == pl.col("other")))
        .then(pl.lit("identical_answers"))
    )
    return _overrule(judged.drop(CONSUMED_COLUMNS))


def _not_granted(consent: str) -> pl.Expr:
    return (pl.col(consent) != "granted").fill_null(True)


def _resolved(triplets: Interned) -> pl.DataFrame:
    """Add `reason` where later feedback of the same subject replaces this: the last by (time, id) counts."""
    # A preference is about two answers, so a subject may have several on one answer, one for each rival.
    sides = [pl.min_horizontal("interaction", "rival"), pl.max_horizontal("interaction", "rival")]
    texts = [pl.min_horizontal("answer", "other"), pl.max_horizontal("answer", "other")]
    keys = triplets.keys.sort("created_at", "row")
    same = pl.struct("subject", "kind", "score", one=sides[0], two=sides[1]).hash()
    alike = pl.struct("subject", "kind", "score", "prompt", one=texts[0], two=texts[1]).hash()
    keys = keys.with_columns(same=same, alike=alike).with_columns(
        last=pl.col("row").last().over("same"), is_taken_back=pl.col("is_retracted").last().over("same")
    )
    reason = (
        pl.when("is_taken_back")
        .then(pl.lit("retracted"))
        .when(pl.col("last") != pl.col("row"))
        .then(pl.lit("superseded"))
    )
    keys = _take_back(keys.with_columns(reason=reason), triplets.triplet_ids)
    standing = pl.col("row").filter(pl.col("reason").is_null())
    is_repeated = pl.col("reason").is_null() & (standing.last().over("alike") != pl.col("row"))
    keys = keys.with_columns(reason=pl.when(is_repeated).then(pl.lit("duplicate")).otherwise("reason"))
    return keys.drop("same", "alike", "last", "is_taken_back").sort("row")


def _take_back(keys: pl.DataFrame, triplet_ids: pl.Series) -> pl.DataFrame:
    """Add `reason` to feedback that the same subject supersedes or retracts by id."""
    later = keys.filter(pl.col("supersedes_id").is_not_null())
    if later.is_empty():
        return keys
    named = later.select("subject", named_by=pl.col("is_retracted"), triplet_id="supersedes_id")
    places = pl.DataFrame({"triplet_id": triplet_ids}).with_row_index("row")
    taken = named.join(places, on="triplet_id").group_by("row", "subject").agg(pl.col("named_by").any())
    word = pl.when("named_by").then(pl.lit("retracted")).otherwise(pl.lit("superseded"))
    return (
        keys.join(taken, on=["row", "subject"], how="left", maintain_order="left")
        .with_columns(reason=pl.coalesce("reason", pl.when(pl.col("named_by").is_not_null()).then(word)))
        .drop("named_by")
    )


def edit_shares(before: pl.Series, after: pl.Series) -> np.ndarray:
    """Return the share of changed words, 0 to 1: one minus Dice's similarity of bags of words; order does not count."""
    parts = (slice(first, first + SLICE_TEXTS) for first in range(0, len(before), SLICE_TEXTS))
    return np.concatenate([np.zeros(0), *(_edit_shares(before[part], after[part]) for part in parts)])


def _edit_shares(before: pl.Series, after: pl.Series) -> np.ndarray:
    bags = [hash_words(texts, TOKENS) for texts in (before, after)]
    # Words as numbers unique to their text: the text's index in the high bits, the word's hash below.
    packed = (
        (bag.owners.astype(np.uint64) << np.uint64(WORD_BITS)) | (bag.items >> np.uint64(64 - WORD_BITS))
        for bag in bags
    )
    (words, times), (words_after, times_after) = (np.unique(numbers, return_counts=True) for numbers in packed)
    _, place, place_after = np.intersect1d(words, words_after, assume_unique=True, return_indices=True)
    kept = np.minimum(times[place], times_after[place_after])
    owner = (words[place] >> np.uint64(WORD_BITS)).astype(np.int64)
    shared = np.bincount(owner, kept, minlength=len(before))
    num_words = bags[0].sizes + bags[1].sizes
    share: np.ndarray = 1 - 2 * shared / np.maximum(num_words, 1)
    return np.where(num_words > 0, share, 0.0)


def _overrule(judged: pl.DataFrame) -> pl.DataFrame:
    """Mark up votes on a corrected answer as overruled: a correction is the stronger signal."""
    corrections = judged.filter(pl.col("reason").is_null(), pl.col("kind") == "correction")
    corrected = corrections.select("prompt", "answer", is_corrected=True).unique()
    is_overruled = pl.col("kind").is_in(VOTES) & pl.col("is_up") & pl.col("is_corrected")
    return (
        judged.join(corrected, on=["prompt", "answer"], how="left", maintain_order="left")
        .with_columns(reason=pl.coalesce("reason", pl.when(is_overruled).then(pl.lit("overruled"))))
        .drop("is_corrected")
    )


def is_explicit() -> pl.Expr:
    return pl.col("kind").is_in(EXPLICIT)
