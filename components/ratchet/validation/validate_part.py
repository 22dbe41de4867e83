"""Validate one part of the triplets (`ratchet.validation.slices`): scrub its good rows, explain its bad ones.

The result depends on nothing outside the part, so parts can be validated in any order, by any process.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl
import polars_hash

from ratchet.config import ValidateTriplets
from ratchet.lake.schema import COLLECTION, TRIPLETS
from ratchet.manifest import Flow
from ratchet.privacy.scrub import Tier
from ratchet.privacy.scrub_triplets import scrub_triplets
from ratchet.validation.compiler import MASK, Rule, reasons
from ratchet.validation.daily_failures import count_daily_failures
from ratchet.validation.suite import KEY, compile_rules, drops, judge_rows

REASONS = "reasons"
SAMPLE_HASH = "sample_hash"
SAMPLE_SEED = 1  # not the slices' seed, with which the whole sample would come from the first slice


@dataclass(frozen=True)
class Part:
    """A validated part: its good and bad rows, a sample of all with masks, daily failures, findings by kind."""

    good: pl.DataFrame
    bad: pl.DataFrame
    sample: pl.DataFrame
    evidence: pl.DataFrame
    scrubbed: Counter[str]


def process(triplets: pl.DataFrame, rules: tuple[Rule, ...], tiers: Sequence[Tier], sample_rows: int) -> Part:
    """Judge triplets by the rules, scrub the good rows, and list each bad row's reasons.

    The sample of `sample_rows` rows, with masks, is for the parity check against Great Expectations.
    """
    judged = judge_rows(triplets.drop(COLLECTION, strict=False), rules)
    is_good = pl.col(MASK) == 0
    sample_hash = polars_hash.col(KEY).nchash.xxh3_64(seed=SAMPLE_SEED).fill_null(0).alias(SAMPLE_HASH)
    good, scrubbed = scrub_triplets(judged.filter(is_good).drop(MASK), tiers)
    return Part(
        good=good,
        bad=judged.filter(~is_good).with_columns(reasons(rules).alias(REASONS)),
        sample=lowest_rows(judged.with_columns(sample_hash), sample_rows),
        evidence=count_daily_failures(judged, rules),
        scrubbed=scrubbed,
    )


def lowest_rows(rows: pl.DataFrame, num_rows: int) -> pl.DataFrame:
    """Return the `num_rows` rows of lowest sample hash, sorted by it, and every row that ties with the last of them.

    The lowest of all rows are the lowest among the parts' lowest, so the sample does not depend on how rows are cut.
    """
    if not num_rows or rows.is_empty():
        return rows.clear()
    return rows.filter(pl.col(SAMPLE_HASH) <= bound(rows[SAMPLE_HASH], num_rows)).sort(SAMPLE_HASH)


def bound(hashes: pl.Series, num_rows: int) -> int:
    """Return the highest of the `num_rows` lowest hashes. `hashes` must not be empty."""
    return int(hashes.sort()[min(num_rows, len(hashes)) - 1])


def revalidate(quarantined: pl.DataFrame, settings: ValidateTriplets) -> Flow:
    """Judge quarantined triplets by the current contract: rows out are those that would pass now.

    An id that was repeated passes, since the rows that it was repeated in are not here.
    """
    triplets = quarantined.select(name for name in TRIPLETS.schema if name in quarantined.columns)
    rules = compile_rules(triplets, settings.limits)
    bad = judge_rows(triplets, rules).filter(pl.col(MASK) != 0).select(reasons(rules).alias(REASONS))[REASONS]
    counts = Counter(bad.list.first())
    return Flow(
        rows_in=triplets.height,
        rows_out=triplets.height - len(bad),
        drops={name: counts[name] for name in drops() if counts[name]},
    )
