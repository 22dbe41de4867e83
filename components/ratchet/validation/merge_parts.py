"""Merge the parts' results: verify that they are complete, add them up, and publish them."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from ratchet.compute.parquet import write_parquet
from ratchet.lake.fingerprint import Fingerprint
from ratchet.manifest import Artifact, Flow
from ratchet.store import Store
from ratchet.validation.daily_failures import DAY, merge_daily_failures
from ratchet.validation.part_store import PartRecord, PlannedPart, delete_records
from ratchet.validation.slices import TripletSetRef, triplets_changed
from ratchet.validation.suite import drops
from ratchet.validation.validate_part import SAMPLE_HASH, bound

READERS = 16  # records read at once: an S3 request is mostly waiting


@dataclass(frozen=True)
class MergedParts:
    """All parts of a triplet set, and the sums of their counts."""

    parts: tuple[PartRecord, ...]

    @cached_property
    def valid(self) -> Fingerprint:
        return sum((part.valid for part in self.parts), Fingerprint())

    @cached_property
    def flow(self) -> Flow:
        counted = self._sum("drops")
        return Flow(
            rows_in=sum(part.rows_in for part in self.parts),
            rows_out=self.valid.num_rows,
            drops={name: counted[name] for name in drops() if counted[name]},
        )

    @property
    def failed(self) -> Counter[str]:
        return self._sum("failed")

    @property
    def scrubbed(self) -> Counter[str]:
        return self._sum("scrubbed")

    @property
    def at_risk(self) -> int:
        return sum(part.at_risk for part in self.parts)

    def daily_failures(self) -> pl.DataFrame:
        counts = [(day, *failures) for part in self.parts for day, failures in part.evidence.items()]
        schema = {DAY: pl.String, **dict.fromkeys(("rows", *drops()), pl.Int64)}
        return merge_daily_failures([pl.DataFrame(counts, schema, orient="row")])

    def _sum(self, name: str) -> Counter[str]:
        return sum((Counter(getattr(part, name)) for part in self.parts), Counter())


def merge_parts(store: Store, named: TripletSetRef, parts: Sequence[PlannedPart]) -> MergedParts:
    """Load the parts, which must all be done, and verify that they cover these triplets.

    The rows read by a collection's parts must add up to its record's fingerprint. Otherwise the records of these parts
    are deleted, so that they are made again, and UserError is raised.
    """
    with ThreadPoolExecutor(READERS) as readers:
        done = tuple(readers.map(lambda planned: PartRecord.load(store, planned), parts))
    read: defaultdict[int, Fingerprint] = defaultdict(Fingerprint)
    for part, record in zip(parts, done, strict=True):
        read[part.slice.collection.number] += record.read
    wrong = [part for part in parts if read[part.slice.collection.number] != part.slice.collection.content]
    if wrong:
        delete_records(store, wrong)
        raise triplets_changed(store, named)
    return MergedParts(done)


def sample(store: Store, merged: MergedParts, num_rows: int) -> pl.DataFrame:
    """Return the `num_rows` rows of lowest hash among the parts' samples, with their masks."""
    rows = pl.concat([pl.scan_parquet(store.local(part.sample)) for part in merged.parts], how="diagonal")
    hashes = rows.select(SAMPLE_HASH).collect().to_series()
    lowest = rows.filter(pl.col(SAMPLE_HASH) <= bound(hashes, num_rows)) if len(hashes) else rows
    return lowest.drop(SAMPLE_HASH).collect()


def publish_quarantine(store: Store, merged: MergedParts, **marks: str) -> Artifact:
    """Publish all bad rows as `quarantine/<digest of the rows>`, one file for each part, with `marks` as columns."""
    content = Fingerprint()
    with tempfile.TemporaryDirectory() as aside:
        # Without any bad row, one part's empty file gives the columns.
        parts = [part for part in merged.parts if part.rows_in > part.rows_out] or merged.parts[:1]
        for number, part in enumerate(parts):
            rows = pl.read_parquet(store.local(part.bad))
            marked = rows.with_columns(pl.lit(mark).alias(name) for name, mark in marks.items())
            content += Fingerprint.of(marked)
            write_parquet(marked, Path(aside) / f"{number:05d}.parquet")
        key = f"quarantine/{content.digest()}"
        store.put_tree(Path(aside), key)
    return Artifact(uri=key, digest=content.digest(), rows=content.num_rows)
