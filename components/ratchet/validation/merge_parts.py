"""What became of all triplets: the parts' results proven to be whole, added up and published."""

import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import polars as pl

from ratchet.compute.parquet import write_parquet
from ratchet.lake.fingerprint import Fingerprint
from ratchet.manifest import Artifact, Flow
from ratchet.store import Store
from ratchet.validation.daily_failures import DAY, evidence
from ratchet.validation.part_store import PartRecord, Planned, forget
from ratchet.validation.slices import TripletSetRef, no_longer_there
from ratchet.validation.suite import drops
from ratchet.validation.validate_part import SAMPLE_HASH, bound

READERS = 16  # of records at once, since an S3 server answers each in its own time


@dataclass(frozen=True)
class MergedParts:
    """The parts of some triplets, and their numbers in sums."""

    parts: tuple[PartRecord, ...]

    @cached_property
    def valid(self) -> Fingerprint:
        return sum((one.valid for one in self.parts), Fingerprint())

    @cached_property
    def flow(self) -> Flow:
        counted = self._sum("drops")
        return Flow(
            rows_in=sum(one.rows_in for one in self.parts),
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
        return sum(one.at_risk for one in self.parts)

    def evidence(self) -> pl.DataFrame:
        counts = [(day, *counts) for one in self.parts for day, counts in one.evidence.items()]
        schema = {DAY: pl.String, **dict.fromkeys(("rows", *drops()), pl.Int64)}
        return evidence([pl.DataFrame(counts, schema, orient="row")])

    def _sum(self, name: str) -> Counter[str]:
        return sum((Counter(getattr(one, name)) for one in self.parts), Counter())


def merge_parts(store: Store, named: TripletSetRef, parts: Sequence[Planned]) -> MergedParts:
    """The parts, all of which are done, proven to be of these triplets.

    What the slices of a collection were made from must add up to what it brought. Else the parts of that collection
    are forgotten, and UserError is raised.
    """
    with ThreadPoolExecutor(READERS) as readers:
        done = tuple(readers.map(lambda planned: PartRecord.load(store, planned), parts))
    found: defaultdict[int, Fingerprint] = defaultdict(Fingerprint)
    for planned, one in zip(parts, done, strict=True):
        found[planned.slice.collection.number] += one.read
    wrong = [one for one in parts if found[one.slice.collection.number] != one.slice.collection.content]
    if wrong:
        forget(store, wrong)
        raise no_longer_there(store, named)
    return MergedParts(done)


def sample(store: Store, gathered: MergedParts, num_rows: int) -> pl.DataFrame:
    """The rows of lowest hash among the parts' own, each with its mask."""
    rows = pl.concat([pl.scan_parquet(store.local(one.sample)) for one in gathered.parts], how="diagonal")
    hashes = rows.select(SAMPLE_HASH).collect().to_series()
    found = rows.filter(pl.col(SAMPLE_HASH) <= bound(hashes, num_rows)) if len(hashes) else rows
    return found.drop(SAMPLE_HASH).collect()


def publish_quarantine(store: Store, gathered: MergedParts, **marks: str) -> Artifact:
    """All bad rows, a file a part, as `quarantine/<digest of the rows>`; `marks` (suite, batch) stay with them."""
    content = Fingerprint()
    with tempfile.TemporaryDirectory() as aside:
        for number, rows in enumerate(_bad(store, gathered)):
            marked = rows.with_columns(pl.lit(mark).alias(name) for name, mark in marks.items())
            content += Fingerprint.of(marked)
            write_parquet(marked, Path(aside) / f"{number:05d}.parquet")
        key = f"quarantine/{content.digest()}"
        store.put_tree(Path(aside), key)
    return Artifact(uri=key, digest=content.digest(), rows=content.num_rows)


def _bad(store: Store, gathered: MergedParts) -> Iterator[pl.DataFrame]:
    """The bad rows of each part that has some; without any those of the first, which say what the columns are."""
    for one in [one for one in gathered.parts if one.rows_in > one.rows_out] or gathered.parts[:1]:
        yield pl.read_parquet(store.local(one.bad))
