"""How much a row counts, and how likely its votes are wrong. Arithmetic on columns; every formula has its source.

A row's weight is the product of `FACTORS`, and each is a column of its own beside it.
"""

import polars as pl

from ratchet.clock import DAY_S

FACTORS = {
    "base": "what the kind of signal is worth",
    "reliability": "how far its raters are to be trusted, against a rater nobody knows",
    "agreement": "how one-sided the votes are",
    "recency": "how fresh the newest vote is",
    "exposure": "one over the chance that the answer was shown",
    "caution": "less than one where the prompt tries to give orders",
}
# Votes on one answer that split closer than this say nothing about it.
UNSURE_LOW, UNSURE_HIGH = 0.35, 0.65
MILLI = 1000  # reliability is kept in thousandths: sums of whole numbers are the same in any order


def weight() -> pl.Expr:
    product = pl.col("base") * pl.col("reliability") * pl.col("agreement")
    return stable(product * pl.col("recency") * pl.col("exposure") * pl.col("caution"))


def agreement(share: pl.Expr) -> pl.Expr:
    """How one-sided the votes are, 0 to 1, given the share on one side: |2p - 1|, so a lone vote agrees fully."""
    return (2 * share - 1).abs()


def is_unsure(share: pl.Expr) -> pl.Expr:
    return share.is_between(UNSURE_LOW, UNSURE_HIGH, closed="none")


def smoothed(votes: pl.Expr, num_votes: pl.Expr) -> pl.Expr:
    """Posterior mean of a share under Jeffreys' prior Beta(1/2, 1/2): the Krichevsky-Trofimov estimator.

    One vote of one gives 0.75, three of three 0.875. With the minority's votes it is the chance that the majority is
    wrong; a lone judge's 0.25 lies in the 20 to 40 % of noisy pairs that arXiv 2404.09824 reports. A vote of a rater
    who is half trusted counts half.
    """
    return (votes + 0.5) / (num_votes + 1)


def opposed_flip(up_chosen: pl.Expr, up_rejected: pl.Expr) -> pl.Expr:
    """Chance that the rejected answer is the better one, given each answer's chance to be liked.

    Two independent judgements show a preference only where they differ, so it is the odds of (down, up) against
    (up, down), as in Bradley and Terry (1952).
    """
    wrong = (1 - up_chosen) * up_rejected
    return wrong / (wrong + up_chosen * (1 - up_rejected))


def recency(created_at: pl.Expr, newest: float, half_life_days: float) -> pl.Expr:
    """Exponential decay of a vote's weight with its age against the newest vote of the batch, both in Unix seconds."""
    age_days = (newest - created_at) / DAY_S
    return stable((-age_days / half_life_days * pl.lit(2.0).log()).exp())


def exposure(propensity: pl.Expr, largest: float) -> pl.Expr:
    """Inverse propensity, clipped (Swaminathan and Joachims, ICML 2015); 1 where the chance is not known or none."""
    is_chance = (propensity > 0) & (propensity <= 1)
    return stable(pl.when(is_chance).then((1 / propensity).clip(1.0, largest)).otherwise(1.0).fill_null(1.0))


def stable(value: pl.Expr) -> pl.Expr:
    """Six significant digits: the last bits of `exp` differ between machines, and digests must not."""
    return value.round_sig_figs(6)
