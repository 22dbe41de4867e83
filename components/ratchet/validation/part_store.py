"""Parts of the triplets that were validated: what they are known by, and where in the lake their results lie.

A part's key is a digest of all that its result depends on, so one that is there is not made again. Its record is
written last and names the files beside it, which are named by their bytes: what another attempt left is nobody's.
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

VERSION = 4  # of the step; raised when the code makes something else of the same rows, so that no part is found
FOLDER = "parts/validate_triplets"
RECORD = "record.json"
SAMPLE_GROUP_ROWS = 256  # of a part's sample a run needs the first few rows, fewer the more parts there are


@dataclass(frozen=True)
class Planned:
    """A part to be made: its rows, by what it is judged, and which of its ids occur elsewhere as well."""

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
    """A part that is done, in numbers."""

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
    """By day: how many rows, and how many break each expectation, in the suite's order."""
    good: str
    bad: str
    sample: str
    """Keys of the files."""

    @classmethod
    def load(cls, store: Store, planned: Planned) -> Self:
        return cls.model_validate_json(store.read(planned.record_key))

    @property
    def read(self) -> Fingerprint:
        """The rows that it was made from."""
        return Fingerprint(self.rows_in, self.sums_in)

    @property
    def valid(self) -> Fingerprint:
        return Fingerprint(self.rows_out, self.sums_out)


def are_done(store: Store) -> set[str]:
    """Keys of all parts that are done, of whatever lake, suite and settings."""
    return {key.removesuffix(f"/{RECORD}") for key in store.list(FOLDER) if key.endswith(f"/{RECORD}")}


def write_part(store: Store, planned: Planned, part: "Part", read: Fingerprint) -> None:
    """Write what became of the rows `read`, the record last. Whoever else made the part wrote the same."""
    from ratchet.validation.validate_part import SAMPLE_HASH

    files = {
        "good": _write(store, planned, "good", part.good),
        "bad": _write(store, planned, "bad", part.bad),
        "sample": _write(store, planned, "sample", part.sample, SAMPLE_GROUP_ROWS, SAMPLE_HASH),
    }
    store.create_if_absent(planned.record_key, _record(part, read, files).model_dump_json(indent=1).encode())


def forget(store: Store, parts: "list[Planned]") -> None:
    """Let these parts be made anew. Their files stay: an earlier result may name them."""
    for planned in parts:
        store.remove(planned.record_key)


def _write(
    store: Store,
    planned: Planned,
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
