"""Triplets in quarantine under today's contract: which would pass, and why the rest would not."""

from collections import Counter

import polars as pl

from ratchet.config import ValidateTriplets
from ratchet.lake.schema import TRIPLETS
from ratchet.manifest import Flow
from ratchet.validation.compiler import MASK, reasons
from ratchet.validation.suite import compile_rules, drops, judge_rows


def second_look(rows: pl.DataFrame, settings: ValidateTriplets) -> Flow:
    """Rows in are the batch's, rows out those that pass now. A repeated id passes alone: its twin is not here."""
    triplets = rows.select(name for name in TRIPLETS.schema if name in rows.columns)
    rules = compile_rules(triplets, settings.limits)
    bad = judge_rows(triplets, rules).filter(pl.col(MASK) != 0).select(reasons(rules).alias("reasons"))["reasons"]
    counts = Counter(bad.list.first())
    passed = triplets.height - len(bad)
    return Flow(
        rows_in=triplets.height, rows_out=passed, drops={name: counts[name] for name in drops() if counts[name]}
    )
