"""Formulas for a row's weight and for the probability that its votes are wrong, each with its source.

A row's weight is the product of `FACTORS`; each factor is also a column.
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
# A share of up votes between these is undecided.
UNSURE_LOW, UNSURE_HIGH = 0.35, 0.65
MILLI = 1000  # reliability is kept in thousandths: sums of whole numbers are the same in any order


def weight() -> pl.Expr:
    product = pl.col("base") * pl.col("reliability") * pl.col("agreement")
    return stable(product * pl.col("recency") * pl.col("exposure") * pl.col("caution"))


def agreement(share: pl.Expr) -> pl.Expr:
    """Return how one-sided votes are, 0 to 1, given the share p on one side: |2p - 1|; a lone vote gives 1."""
    return (2 * share - 1).abs()


def is_unsure(share: pl.Expr) -> pl.Expr:
    return share.is_between(UNSURE_LOW, UNSURE_HIGH, closed="none")


def smoothed(votes: pl.Expr, num_votes: pl.Expr) -> pl.Expr:
    """Return the posterior mean of a share under Jeffreys' prior Beta(1/2, 1/2): the Krichevsky-Trofimov estimator.

    One vote of one gives 0.75, three of three 0.875. Of the minority's votes it is the probability that the majority
    is wrong; a lone rater's 0.25 is within the 20 to 40 % of noisy pairs that arXiv 2404.09824 reports. A vote of a
    rater with half the trust counts half.
    """
    return (votes + 0.5) / (num_votes + 1)


def opposed_flip(up_chosen: pl.Expr, up_rejected: pl.Expr) -> pl.Expr:
    """Return the probability that the rejected answer is better, given each answer's probability to be liked.

    Two independent votes show a preference only where they differ, so it is P(down, up) / (P(down, up) + P(up, down)),
    as in Bradley and Terry (1952).
    """
    wrong = (1 - up_chosen) * up_rejected
    return wrong / (wrong + up_chosen * (1 - up_rejected))


def recency(created_at: pl.Expr, newest: float, half_life_days: float) -> pl.Expr:
    """Return the exponential decay with a vote's age relative to the newest vote, both in Unix seconds."""
    age_days = (newest - created_at) / DAY_S
    return stable((-age_days / half_life_days * pl.lit(2.0).log()).exp())


def exposure(propensity: pl.Expr, largest: float) -> pl.Expr:
    """Return the clipped inverse propensity (Swaminathan and Joachims, ICML 2015); 1 if it is unknown or invalid."""
    is_chance = (propensity > 0) & (propensity <= 1)
    return stable(pl.when(is_chance).then((1 / propensity).clip(1.0, largest)).otherwise(1.0).fill_null(1.0))


def stable(value: pl.Expr) -> pl.Expr:
    """Round to six significant digits: the last bits of `exp` differ between machines, and digests must not."""
    return value.round_sig_figs(6)
