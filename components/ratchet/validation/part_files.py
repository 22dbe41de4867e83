"""Parts of the triplets that were validated: what they are known by, and where in the lake their results lie.

A part's key is a digest of all that its result depends on, so one that is there is right and is not made again. Its
record is written last; the files beside it carry the digest of the rows that they were made from, so that nothing of
an attempt on other rows is ever taken for it.
"""

import io
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from ratchet.config import ValidateTriplets
from ratchet.digest import digest_json
from ratchet.errors import Conflict
from ratchet.lake.content import Content
from ratchet.parquet import ROW_GROUP_ROWS, write_parquet
from ratchet.store import Store
from ratchet.validation.suite import suite_digest

if TYPE_CHECKING:
    from ratchet.lake.artifact import Slice
    from ratchet.validation.parts import Part

VERSION = 4  # of the step; raised when the code makes something else of the same rows, so that no part is found
FOLDER = "parts/validate_triplets"
RECORD = "record.json"
SAMPLE_GROUP_ROWS = 256  # of a part's sample a run needs the first few rows, fewer the more parts there are


@dataclass(frozen=True)
class Planned:
    """A part to be made: its rows, by what it is judged, and which of its ids occur elsewhere as well."""

    slice: "Slice"
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

    def file_key(self, kind: str, read: Content) -> str:
        return f"{self.key}/{kind}-{read.digest()[:16]}.parquet"


class Record(BaseModel):
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

    @property
    def read(self) -> Content:
        """The rows that it was made from."""
        return Content(self.rows_in, self.sums_in)

    @property
    def valid(self) -> Content:
        return Content(self.rows_out, self.sums_out)


@dataclass(frozen=True)
class Done:
    """A part that is done: its numbers, and the keys of its files."""

    planned: Planned
    record: Record

    @classmethod
    def load(cls, store: Store, planned: Planned) -> Self:
        return cls(planned, Record.model_validate_json(store.read(planned.record_key)))

    @property
    def good(self) -> str:
        return self.planned.file_key("good", self.record.read)

    @property
    def bad(self) -> str:
        return self.planned.file_key("bad", self.record.read)

    @property
    def sample(self) -> str:
        return self.planned.file_key("sample", self.record.read)


def are_done(store: Store) -> set[str]:
    """Keys of all parts that are done, of whatever lake, suite and settings."""
    return {key.removesuffix(f"/{RECORD}") for key in store.list(FOLDER) if key.endswith(f"/{RECORD}")}


def write_part(store: Store, planned: Planned, part: "Part", read: Content) -> None:
    """Write what became of the rows `read`, the record last. Whoever else made the part wrote the same."""
    from ratchet.validation.parts import SAMPLE_HASH

    for kind, rows, group_rows, sorted_by in (
        ("good", part.good, ROW_GROUP_ROWS, None),
        ("bad", part.bad, ROW_GROUP_ROWS, None),
        ("sample", part.sample, SAMPLE_GROUP_ROWS, SAMPLE_HASH),
    ):
        file = io.BytesIO()
        write_parquet(rows, file, sorted_by=sorted_by, row_group_rows=group_rows)
        _create(store, planned.file_key(kind, read), file.getvalue())
    _create(store, planned.record_key, _record(part, read).model_dump_json(indent=1).encode())


def forget(store: Store, parts: "list[Planned]") -> None:
    """Let these parts be made anew. Their files stay: an earlier result may name them."""
    for planned in parts:
        store.remove(planned.record_key)


def _record(part: "Part", read: Content) -> Record:
    from ratchet.privacy.triplets import INJECTION_RISK
    from ratchet.validation.parts import REASONS

    valid = Content.of(part.good)
    return Record(
        rows_in=read.num_rows,
        sums_in=read.sums,
        rows_out=valid.num_rows,
        sums_out=valid.sums,
        drops=dict(part.bad[REASONS].list.first().value_counts().iter_rows()),
        failed=dict(part.bad[REASONS].explode().drop_nulls().value_counts().iter_rows()),
        scrubbed=dict(part.scrubbed),
        at_risk=int(part.good[INJECTION_RISK].sum()),
        evidence={day: tuple(counts) for day, *counts in part.evidence.iter_rows()},
    )


def _create(store: Store, key: str, data: bytes) -> None:
    with suppress(Conflict):
        store.create(key, data)
