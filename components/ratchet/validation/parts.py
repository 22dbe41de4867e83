"""What is made of a part of the triplets (`ratchet.lake.artifact`): good rows scrubbed, bad rows named.

Its rows depend on nothing outside it, so parts may be taken in any order, by anybody; their number of rows is fixed,
since it shapes the files and so the digest.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import polars as pl

from ratchet.lake.rows import COLLECTION
from ratchet.privacy.scrub import Tier
from ratchet.privacy.triplets import INJECTION_RISK, scrub_triplets
from ratchet.validation.compiler import MASK, Rule, reasons
from ratchet.validation.evidence import count
from ratchet.validation.suite import KEY, judge

REASONS = "reasons"
LAST_HASH = 2**64 - 1


@dataclass(frozen=True)
class Part:
    """What became of some triplets."""

    good: pl.DataFrame
    bad: pl.DataFrame
    sample: pl.DataFrame
    evidence: pl.DataFrame
    scrubbed: Counter[str]


@dataclass
class Totals:
    """What became of all triplets, in sums."""

    rows_in: int = 0
    rows_out: int = 0
    samples: list[pl.DataFrame] = field(default_factory=list)
    evidence: list[pl.DataFrame] = field(default_factory=list)
    drops: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    scrubbed: Counter[str] = field(default_factory=Counter)
    at_risk: int = 0

    def add(self, part: Part) -> None:
        self.rows_in += part.good.height + part.bad.height
        self.rows_out += part.good.height
        self.samples.append(part.sample)
        self.evidence.append(part.evidence)
        self.drops.update(part.bad[REASONS].list.first())
        self.failed.update(part.bad[REASONS].explode())
        self.scrubbed.update(part.scrubbed)
        self.at_risk += int(part.good[INJECTION_RISK].sum())


def process(
    triplets: pl.DataFrame, rules: tuple[Rule, ...], tiers: Sequence[Tier], sample_share: float, **marks: str
) -> Part:
    """Judge some triplets, scrub what is good, and explain what is bad; `marks` (suite, batch) stay with the bad rows.

    `sample_share` of the rows come back with their masks, for somebody else to judge.
    """
    judged = judge(triplets.drop(COLLECTION, strict=False), rules)
    is_good = pl.col(MASK) == 0
    good, scrubbed = scrub_triplets(judged.filter(is_good).drop(MASK), tiers)
    return Part(
        good=good,
        bad=_explain(judged.filter(~is_good), rules, marks),
        sample=judged.filter(_in_sample(sample_share)),
        evidence=count(judged, rules),
        scrubbed=scrubbed,
    )


def _explain(bad: pl.DataFrame, rules: Sequence[Rule], marks: Mapping[str, str]) -> pl.DataFrame:
    return bad.with_columns(reasons(rules).alias(REASONS), **{name: pl.lit(mark) for name, mark in marks.items()})


def _in_sample(share: float) -> pl.Expr:
    """Rows by the hash of their id: the same ones wherever the parts are cut. Nothing is kept under these hashes."""
    return pl.col(KEY).hash(seed=0) <= pl.lit(min(int(share * LAST_HASH), LAST_HASH), pl.UInt64)
