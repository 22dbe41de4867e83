"""Store validated parts of the triplets in the lake, keyed by everything that their result depends on.

A part whose key exists is not made again. Its record is written last and names its files, which are named by their
content; files that no record names are left over from a failed attempt.
"""

import io
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from ratchet.compute.parquet import ROW_GROUP_ROWS, write_parquet
from ratchet.config import ValidateTriplets
from ratchet.digest import digest_bytes, digest_json
from ratchet.lake.fingerprint import Fingerprint
from ratchet.store import Store
from ratchet.validation.suite import suite_digest

if TYPE_CHECKING:
    import polars as pl

    from ratchet.validation.slices import TripletSlice
    from ratchet.validation.validate_part import Part

VERSION = 4  # of the step; raise it when the code gives another result for the same rows
FOLDER = "parts/validate_triplets"
RECORD = "record.json"
SAMPLE_GROUP_ROWS = 256  # small, since a run reads only the first rows of each part's sample


@dataclass(frozen=True)
class PlannedPart:
    """A part to make: its slice, the settings, and those of its ids that also occur elsewhere."""

    slice: "TripletSlice"
    settings: ValidateTriplets
    repeated: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        content = self.slice.collection.content
        work = {
            "version": VERSION,
            "collection": [content.num_rows, *content.sums],
            "slice": [self.slice.number, self.slice.of],
            "suite": suite_digest(),
            "settings": self.settings.model_dump(mode="json", exclude={"max_bad_share"}),
            "repeated": self.repeated,
        }
        return f"{FOLDER}/{digest_json(work)[:32]}"

    @property
    def record_key(self) -> str:
        return f"{self.key}/{RECORD}"


class PartRecord(BaseModel):
    """The counts, fingerprints and files of a finished part."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows_in: int
    sums_in: tuple[int, ...]
    rows_out: int
    sums_out: tuple[int, ...]
    drops: dict[str, int]
    """Bad rows by the first reason of each."""
    failed: dict[str, int]
    """Bad rows by each of their reasons."""
    scrubbed: dict[str, int]
    at_risk: int
    evidence: dict[str, tuple[int, ...]]
    """By day: the number of rows, then the number that break each expectation, in the suite's order."""
    good: str
    bad: str
    sample: str
    """Keys of the files."""

    @classmethod
    def load(cls, store: Store, planned: PlannedPart) -> Self:
        return cls.model_validate_json(store.read(planned.record_key))

    @property
    def read(self) -> Fingerprint:
        """The fingerprint of the rows that it was made from."""
        return Fingerprint(self.rows_in, self.sums_in)

    @property
    def valid(self) -> Fingerprint:
        return Fingerprint(self.rows_out, self.sums_out)


def done_keys(store: Store) -> set[str]:
    """Return the keys of all finished parts, of any suite and settings."""
    return {key.removesuffix(f"/{RECORD}") for key in store.list(FOLDER) if key.endswith(f"/{RECORD}")}


def write_part(store: Store, planned: PlannedPart, part: "Part", read: Fingerprint) -> None:
    """Write a part's files, then its record. Concurrent writers of one part write the same bytes."""
    from ratchet.validation.validate_part import SAMPLE_HASH

    files = {
        "good": _write(store, planned, "good", part.good),
        "bad": _write(store, planned, "bad", part.bad),
        "sample": _write(store, planned, "sample", part.sample, SAMPLE_GROUP_ROWS, SAMPLE_HASH),
    }
    store.create_if_absent(planned.record_key, _record(part, read, files).model_dump_json(indent=1).encode())


def delete_records(store: Store, parts: "list[PlannedPart]") -> None:
    """Delete the parts' records, so that they are made again. Their files stay: an earlier result may name them."""
    for planned in parts:
        store.remove(planned.record_key)


def _write(
    store: Store,
    planned: PlannedPart,
    kind: str,
    rows: "pl.DataFrame",
    group_rows: int = ROW_GROUP_ROWS,
    sorted_by: str | None = None,
) -> str:
    file = io.BytesIO()
    write_parquet(rows, file, sorted_by=sorted_by, row_group_rows=group_rows)
    data = file.getvalue()
    key = f"{planned.key}/{kind}-{digest_bytes(data)[:16]}.parquet"
    store.create_if_absent(key, data)
    return key


def _record(part: "Part", read: Fingerprint, files: dict[str, str]) -> PartRecord:
    from ratchet.privacy.scrub_triplets import INJECTION_RISK
    from ratchet.validation.validate_part import REASONS

    valid = Fingerprint.of(part.good)
    return PartRecord(
        rows_in=read.num_rows,
        sums_in=read.sums,
        rows_out=valid.num_rows,
        sums_out=valid.sums,
        drops=dict(part.bad[REASONS].list.first().value_counts().iter_rows()),
        failed=dict(part.bad[REASONS].explode().drop_nulls().value_counts().iter_rows()),
        scrubbed=dict(part.scrubbed),
        at_risk=int(part.good[INJECTION_RISK].sum()),
        evidence={day: tuple(counts) for day, *counts in part.evidence.iter_rows()},
        **files,
    )
