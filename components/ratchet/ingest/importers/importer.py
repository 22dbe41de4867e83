"""Run an importer over every record of its sources."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from ratchet.errors import UserError
from ratchet.ingest.importers.intake import Imported, Intake, Terms
from ratchet.ingest.importers.records import SourceRecord, records
from ratchet.progress import show_progress
from ratchet.store import Store

Reader = Callable[[Intake, bytes], None]


@dataclass(frozen=True)
class Importer:
    """The readers of one format: of feedback and, if the texts are in a second export, of traces."""

    name: str
    about: str
    file: str
    read: Reader
    traces_file: str = ""
    read_trace: Reader | None = None
    num_votes: int = 1  # in one record; counted as dropped if the whole record is refused


@dataclass(frozen=True)
class Source:
    """A stream of records, from a file or a server."""

    name: str
    records: Iterator[SourceRecord]
    size_bytes: float
    is_trace: bool = False

    @classmethod
    def file_at(cls, path: Path, is_trace: bool = False) -> "Source":
        if not path.is_file():
            raise UserError(f"import: {path} is not a file")
        return cls(path.name, records(path), path.stat().st_size, is_trace)


def import_sources(store: Store, importer: Importer, sources: Sequence[Source], terms: Terms) -> Imported:
    """Land the events of the sources, in order. Raises UserError for a source without records."""
    if importer.read_trace is None and any(source.is_trace for source in sources):
        raise UserError(f"{importer.name} keeps texts and feedback in one file: leave out --traces")
    size_bytes = sum(source.size_bytes for source in sources)
    # A database without a name is a file of its own, deleted when it is closed.
    with closing(sqlite3.connect("")) as seen, show_progress(f"import {importer.name}", size_bytes) as progress:
        intake = Intake(store, importer.name, terms, seen)
        for source in sources:
            intake.open(source.name)
            for record in source.records:
                _read(intake, importer, record, source.is_trace)
                progress.advance(record.size_bytes)
            if intake.order < 0:
                raise UserError(f"{source.name} holds no records; `ratchet import --list` says what is expected")
        return intake.close()


def _read(intake: Intake, importer: Importer, record: SourceRecord, is_trace: bool) -> None:
    if is_trace and importer.read_trace is not None:
        with intake.record(record, "interactions"):
            importer.read_trace(intake, record.data)
    else:
        with intake.record(record, "feedback", importer.num_votes):
            importer.read(intake, record.data)
