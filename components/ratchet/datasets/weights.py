"""How much a row counts, and how likely its votes are wrong. Arithmetic on columns; every formula has its source."""

import polars as pl

# Votes on one answer that split closer than this say nothing about it.
UNSURE_LOW, UNSURE_HIGH = 0.35, 0.65
DAY_S = 86_400


def agreement(share: pl.Expr) -> pl.Expr:
    """How one-sided the votes are, 0 to 1, given the share on one side: |2p - 1|, so a lone vote agrees fully."""
    return (2 * share - 1).abs()


def is_unsure(share: pl.Expr) -> pl.Expr:
    return share.is_between(UNSURE_LOW, UNSURE_HIGH, closed="none")


def smoothed(votes: pl.Expr, num_votes: pl.Expr) -> pl.Expr:
    """Posterior mean of a share under Jeffreys' prior Beta(1/2, 1/2): the Krichevsky-Trofimov estimator.

    One vote of one gives 0.75, three of three 0.875. With the minority's votes it is the chance that the majority is
    wrong; a lone judge's 0.25 lies in the 20 to 40 % of noisy pairs that arXiv 2404.09824 reports.
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
    return (-age_days / half_life_days * pl.lit(2.0).log()).exp()


def stable(value: pl.Expr) -> pl.Expr:
    """Six significant digits: the last bits of `exp` differ between machines, and digests must not."""
    return value.round_sig_figs(6)
