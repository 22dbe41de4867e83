"""Estimate each rater's reliability from agreement with the others, by the one-coin model of Dawid and Skene (1979).

Each rater is right with a probability of their own and each item has a true side; expectation-maximisation estimates
both. A rater with few votes is shrunk towards an ordinary one.
"""

import numpy as np
import polars as pl

from ratchet.datasets.weights import MILLI

# People agree with people on 81 % of comparisons (MT-Bench, arXiv 2306.05685).
ORDINARY = 0.81
PRIOR_VOTES = 10.0  # of an ordinary rater, added to each rater's own
MIN_SHARED = 5  # votes on items with other votes; with fewer a rater counts as an ordinary one
UNTRUSTED = 0.5  # a rater who is right less often than a coin gets no trust
ROUNDS = 20
CLOSE = 1e-4


def judgements(signals: pl.DataFrame) -> pl.DataFrame:
    """Return votes and preferences as (subject, item, is_yes): an item is an answer, or a pair that was compared."""
    is_vote = pl.col("kind").is_in(["thumb", "rating"])
    is_choice = (pl.col("kind") == "preference") & ~pl.col("is_tie")
    first = pl.min_horizontal("answer", "other")
    return signals.filter(is_vote | is_choice).select(
        "subject",
        item=pl.struct("prompt", first.alias("first"), pl.max_horizontal("answer", "other").alias("second")).hash(),
        is_yes=pl.when(is_vote).then("is_up").otherwise(pl.col("answer") == first),
    )


def accuracies(votes: pl.DataFrame) -> pl.DataFrame:
    """Return (subject, accuracy, num_shared) for every subject with a vote on an item with other votes."""
    shared = votes.filter(pl.len().over("item") > 1)
    subjects, rater = np.unique(shared["subject"].to_numpy(), return_inverse=True)
    item = np.unique(shared["item"].to_numpy(), return_inverse=True)[1]
    accuracy = dawid_skene(rater, item, shared["is_yes"].to_numpy())
    counts = np.bincount(rater, minlength=len(subjects))
    return pl.DataFrame(
        {"subject": subjects, "accuracy": accuracy, "num_shared": counts},
        schema={"subject": pl.UInt64, "accuracy": pl.Float64, "num_shared": pl.Int64},
    )


def dawid_skene(rater: np.ndarray, item: np.ndarray, is_yes: np.ndarray) -> np.ndarray:
    """Return each rater's probability of being right, given votes by rater and item number, both from 0."""
    if not len(rater):
        return np.zeros(0)
    num_votes = np.bincount(rater)
    share = np.bincount(item, is_yes) / np.bincount(item)
    accuracy = np.full(len(num_votes), ORDINARY)
    for _ in range(ROUNDS):
        is_right = np.where(is_yes, share[item], 1 - share[item])
        before = accuracy
        accuracy = (ORDINARY * PRIOR_VOTES + np.bincount(rater, is_right)) / (PRIOR_VOTES + num_votes)
        if np.abs(accuracy - before).max() < CLOSE:
            break
        strength = np.log(accuracy / (1 - accuracy))[rater]
        odds = np.clip(np.bincount(item, np.where(is_yes, strength, -strength)), -30, 30)
        share = 1 / (1 + np.exp(-odds))
    return accuracy


def trusted(signals: pl.DataFrame) -> pl.DataFrame:
    """Add `trust` to signals: the weight of the rater's vote, in thousandths of an ordinary rater's.

    (2a - 1) / (2a0 - 1), clipped to 0 and 1, for accuracy a and an ordinary rater's a0: the log odds of a vote,
    log(a / (1 - a)), are about 2 (2a - 1) near a = 1/2.
    """
    known = accuracies(judgements(signals))
    trust = ((2 * pl.col("accuracy") - 1) / (2 * ORDINARY - 1)).clip(0, 1) * MILLI
    known = known.filter(pl.col("num_shared") >= MIN_SHARED)
    known = known.select("subject", trust=pl.when(pl.col("accuracy") < UNTRUSTED).then(0).otherwise(trust.round()))
    rated = signals.join(known, on="subject", how="left", maintain_order="left")
    return rated.with_columns(pl.col("trust").fill_null(MILLI).cast(pl.Int64))
