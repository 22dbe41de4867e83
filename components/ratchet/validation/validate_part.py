"""What is made of a part of the triplets (`ratchet.validation.slices`): good rows scrubbed, bad rows named.

Its rows depend on nothing outside it, so parts may be taken in any order, by anybody, and cut anywhere.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import polars_hash

from ratchet.lake.schema import COLLECTION
from ratchet.privacy.scrub import Tier
from ratchet.privacy.scrub_triplets import scrub_triplets
from ratchet.validation.compiler import MASK, Rule, reasons
from ratchet.validation.daily_failures import count
from ratchet.validation.suite import KEY, judge_rows

REASONS = "reasons"
SAMPLE_HASH = "sample_hash"
SAMPLE_SEED = 1  # another than slices are cut by, else the sample of many slices would be that of the first


@dataclass(frozen=True)
class Part:
    """What became of some triplets."""

    good: pl.DataFrame
    bad: pl.DataFrame
    sample: pl.DataFrame
    evidence: pl.DataFrame
    scrubbed: Counter[str]


def process(triplets: pl.DataFrame, rules: tuple[Rule, ...], tiers: Sequence[Tier], sample_rows: int) -> Part:
    """Judge some triplets, scrub what is good, and explain what is bad.

    `sample_rows` of the rows come back with their masks, for somebody else to judge.
    """
    judged = judge_rows(triplets.drop(COLLECTION, strict=False), rules)
    is_good = pl.col(MASK) == 0
    good, scrubbed = scrub_triplets(judged.filter(is_good).drop(MASK), tiers)
    return Part(
        good=good,
        bad=judged.filter(~is_good).with_columns(reasons(rules).alias(REASONS)),
        sample=lowest(judged.with_columns(_sample_hash()), sample_rows),
        evidence=count(judged, rules),
        scrubbed=scrubbed,
    )


def lowest(rows: pl.DataFrame, num_rows: int) -> pl.DataFrame:
    """So many rows of lowest hash, sorted by it; all rows of an id come along.

    The lowest of all rows are the lowest of those of the parts, wherever these are cut.
    """
    if not num_rows or rows.is_empty():
        return rows.clear()
    return rows.filter(pl.col(SAMPLE_HASH) <= bound(rows[SAMPLE_HASH], num_rows)).sort(SAMPLE_HASH)


def bound(hashes: pl.Series, num_rows: int) -> int:
    """The highest of so many lowest hashes, of which there is one at least."""
    return int(hashes.sort()[min(num_rows, len(hashes)) - 1])


def _sample_hash() -> pl.Expr:
    found: pl.Expr = polars_hash.col(KEY).nchash.xxh3_64(seed=SAMPLE_SEED)
    return found.fill_null(0).alias(SAMPLE_HASH)
