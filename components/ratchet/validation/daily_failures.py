"""Count the rows of each day that break each expectation: a small table, however many rows there are."""

from collections.abc import Iterable, Sequence

import polars as pl

from ratchet.clock import FIRST_SANE_S, LAST_SANE_S
from ratchet.validation.compiler import Rule, failures

DAY = "day"


def count_daily_failures(masked: pl.DataFrame, rules: Sequence[Rule]) -> pl.DataFrame:
    """Return one row for each day of the votes (UTC): `day`, `rows`, and the number of rows with each reason."""
    seconds = pl.when(pl.col("created_at").is_between(FIRST_SANE_S, LAST_SANE_S)).then("created_at")
    day = pl.from_epoch(seconds.cast(pl.Int64)).dt.strftime("%Y-%m-%d").fill_null("unknown")
    return masked.group_by(day.alias(DAY)).agg(pl.len().cast(pl.Int64).alias("rows"), *failures(rules))


def merge_daily_failures(counts: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """Merge the parts' counts to `day, reason, rows, failed, share`: a row for each day and reason, sorted."""
    days = pl.concat(counts).group_by(DAY).agg(pl.all().sum())
    return (
        days.unpivot(index=[DAY, "rows"], variable_name="reason", value_name="failed")
        .select(DAY, "reason", "rows", pl.col("failed").cast(pl.Int64))
        .with_columns(share=pl.col("failed") / pl.col("rows"))
        .sort(DAY, "reason")
    )
