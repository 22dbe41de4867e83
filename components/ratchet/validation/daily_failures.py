"""Evidence: how many rows of each day break each expectation. Small, whatever the number of rows."""

from collections.abc import Iterable, Sequence

import polars as pl

from ratchet.clock import FIRST_SANE_S, LAST_SANE_S
from ratchet.validation.compiler import Rule, failures

DAY = "day"


def count(judged: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """One row a day (of the vote, UTC): `day`, `rows`, and for each reason how many rows have it."""
    seconds = pl.when(pl.col("created_at").is_between(FIRST_SANE_S, LAST_SANE_S)).then("created_at")
    day = pl.from_epoch(seconds.cast(pl.Int64)).dt.strftime("%Y-%m-%d").fill_null("unknown")
    return judged.group_by(day.alias(DAY)).agg(pl.len().cast(pl.Int64).alias("rows"), *failures(rules))


def evidence(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Counts of the parts as one table: `day, reason, rows, failed, share`, sorted; a row for each day and reason."""
    days = pl.concat(counts).group_by(DAY).agg(pl.all().sum())
    return (
        days.unpivot(index=[DAY, "rows"], variable_name="reason", value_name="failed")
        .select(DAY, "reason", "rows", pl.col("failed").cast(pl.Int64))
        .with_columns(share=pl.col("failed") / pl.col("rows"))
        .sort(DAY, "reason")
    )
