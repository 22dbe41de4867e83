"""Maintain the Delta tables: compact small files, vacuum what no version needs, list versions."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from ratchet.clock import HOUR_S
from ratchet.compute.parquet import FEW_VALUES, ROW_GROUP_ROWS
from ratchet.errors import UserError
from ratchet.lake.schema import FEEDBACK, INTERACTIONS, TRIPLETS, Table
from ratchet.lake.tables import FILE_BYTES, open_table
from ratchet.store import Store

TABLES = {table.key.rpartition("/")[2]: table for table in (INTERACTIONS, FEEDBACK, TRIPLETS)}
SAFE_HOURS = 24  # a collector may write for hours before it commits; its files must not look abandoned


class Compacted(BaseModel):
    """File counts of one table's compaction."""

    files_before: int
    files_after: int
    files_removed: int
    """Deleted: not needed by any version younger than the retention, or never committed."""


class Snapshot(BaseModel):
    """A readable version of a table."""

    version: int
    written_at: str
    operation: str


def compact(store: Store, retention_hours: int) -> dict[str, Compacted]:
    """Merge small files, and delete those that no version younger than `retention_hours` needs. Rows do not change.

    Collectors may run at the same time: appends and compaction do not conflict. Raises UserError for a retention
    below `SAFE_HOURS`.
    """
    if retention_hours < SAFE_HOURS:
        raise UserError(
            f"a retention of {retention_hours} hours could remove files that a collector is writing; "
            f"give {SAFE_HOURS} or more"
        )
    return {name: _compact(store, table, retention_hours) for name, table in TABLES.items()}


def snapshots(store: Store, name: str) -> list[Snapshot]:
    """Return the table's versions, oldest first. Raises UserError for an unknown table."""
    if name not in TABLES:
        raise UserError(f"{name}: no such table; known are {', '.join(TABLES)}")
    history = reversed(open_table(store, TABLES[name]).history())
    return [
        Snapshot(
            version=entry["version"],
            written_at=(datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=entry["timestamp"])).isoformat(),
            operation=entry["operation"],
        )
        for entry in history
    ]


def _compact(store: Store, table: Table, retention_hours: int) -> Compacted:
    delta = open_table(store, table)
    before = len(delta.file_uris())
    delta.optimize.compact(target_size=FILE_BYTES, writer_properties=_writer_properties())
    after = len(delta.file_uris())
    removed = delta.vacuum(retention_hours, dry_run=False, enforce_retention_duration=False, full=True)
    # Delta's vacuum ignores the hidden temporary files of killed writers.
    folder, before_s = Path(store.delta_uri(table.key)[0]), time.time() - retention_hours * HOUR_S
    left = [file for file in folder.glob(".*") if file.is_file() and file.stat().st_mtime < before_s]
    for file in left:
        file.unlink()
    return Compacted(files_before=before, files_after=after, files_removed=len(removed) + len(left))


def _writer_properties() -> Any:
    """Return settings for smaller files than `compute.parquet` writes; they take longer to write."""
    from deltalake import ColumnProperties, WriterProperties

    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=ROW_GROUP_ROWS,
        default_column_properties=ColumnProperties(dictionary_enabled=False),
        column_properties=dict.fromkeys(FEW_VALUES, ColumnProperties(dictionary_enabled=True)),
    )
