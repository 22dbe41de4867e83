"""Read a collection's landing files as rows, one batch at a time, whatever their total size.

JSON is decoded once and spilled to disk as columns; Parquet is read in place. Both can then be read twice: the ids
alone, which is cheap, and all columns. A line that is not an event is refused with its position, and stops nothing.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.collection import decode_json, decode_parquet
from ratchet.compute.prefetch import prefetch_map
from ratchet.ingest.landing import lines
from ratchet.ingest.quarantine import RefusedLine, faults
from ratchet.lake.schema import INTERACTIONS, Table
from ratchet.progress import track
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

    Piece = tuple[pl.LazyFrame, str | None, int]

READERS = 2  # batches read at once
READS_AT_ONCE = 16  # small files; an object store answers many in the time of one
BATCH_ROWS = 131_072
BATCH_BYTES = 64 << 20


@dataclass
class EventFiles:
    """The landing files of one event type in a collection. `folder` is for the spilled columns.

    `refused` is complete once `rows` is exhausted. Its offsets count bytes in JSON, rows in Parquet.
    """

    store: Store
    table: Table
    files: Sequence[str]
    folder: Path
    refused: list[RefusedLine] = field(default_factory=list)
    num_rows: int = 0
    _spilled: list[Path] = field(default_factory=list)
    _refused_lines: list[RefusedLine] = field(default_factory=list)

    def __post_init__(self) -> None:
        decode = decode_json.interactions if self.table is INTERACTIONS else decode_json.feedback
        for batch in self._line_batches():
            rows, line_faults = decode([line for _, _, line in batch])
            self._refused_lines += [RefusedLine(*batch[fault.place], faults(fault.error)) for fault in line_faults]
            self._spilled.append(self.folder / f"{self.table.event_type}-{len(self._spilled):05d}.arrow")
            rows.write_ipc(self._spilled[-1])

    def ids(self) -> "Iterator[pl.Series]":
        """Yield the ids of all events, and of some rows that `rows` will refuse."""
        for rows in self.columns(self.table.id):
            yield rows.to_series()

    def columns(self, *names: str) -> "Iterator[pl.DataFrame]":
        """Yield some columns of all events, and of some rows that `rows` will refuse; unchecked, but for their type.

        A column that is absent is null.
        """
        import polars as pl

        types = {name: pl.DataType.from_python(self.table.schema[name]) for name in names}
        for piece, _, _ in self._pieces():
            try:
                given = piece.collect_schema()
                absent = [pl.lit(None, kind).alias(name) for name, kind in types.items() if name not in given]
                rows = (
                    piece.with_columns(absent)
                    .select(names)
                    .with_columns(pl.selectors.numeric().cast(pl.Float64))
                    .collect()
                )
            except pl.exceptions.PolarsError:
                continue  # `rows` refuses it
            if dict(rows.schema) == types:
                yield rows

    def rows(self) -> "Iterator[pl.DataFrame]":
        """Yield the events as rows of the table, without `collection`."""
        self.refused, self.num_rows = list(self._refused_lines), len(self._refused_lines)
        pieces = track(list(self._pieces()), f"collect {self.table.event_type}")
        for rows, refused in prefetch_map(self._read, pieces, READERS):
            self.refused += refused
            self.num_rows += len(refused)
            if rows is not None:
                self.num_rows += rows.height
                yield rows

    def _read(self, piece: "Piece") -> "tuple[pl.DataFrame | None, list[RefusedLine]]":
        rows, file, start = piece
        return (rows.collect(), []) if file is None else self._checked(rows, file, start)

    def _checked(self, piece: "pl.LazyFrame", file: str, start: int) -> "tuple[pl.DataFrame | None, list[RefusedLine]]":
        import polars as pl

        check = decode_parquet.interactions if self.table is INTERACTIONS else decode_parquet.feedback
        try:
            given = piece.collect()
            rows, faulty = check(given)
        except (pl.exceptions.PolarsError, decode_parquet.WrongColumns, OSError) as error:
            why = f"rows from {start:,} on cannot be read: {str(error)[:500]}"
            return None, [RefusedLine(file, start, b"", why)]
        refused = [
            RefusedLine(
                file,
                start + fault.place,
                decode_parquet.as_line(given.row(fault.place, named=True)),
                faults(fault.error),
            )
            for fault in faulty
        ]
        return rows, refused

    def _pieces(self) -> "Iterator[Piece]":
        """Yield each batch, its Parquet file (None for spilled JSON), and its first row there."""
        import polars as pl

        for path in self._spilled:
            yield pl.scan_ipc(path), None, 0
        for file in self.files:
            if file.endswith(".parquet"):
                path = self.store.local(file)
                for start in range(0, _num_rows(path), BATCH_ROWS):
                    yield pl.scan_parquet(path).slice(start, BATCH_ROWS), file, start

    def _line_batches(self) -> Iterator[list[tuple[str, int, bytes]]]:
        batch: list[tuple[str, int, bytes]] = []
        size_bytes = 0
        for file, file_lines in self._files_of_lines():
            for offset, line in file_lines:
                batch.append((file, offset, line))
                size_bytes += len(line)
                if len(batch) == BATCH_ROWS or size_bytes >= BATCH_BYTES:
                    yield batch
                    batch, size_bytes = [], 0
        if batch:
            yield batch

    def _files_of_lines(self) -> Iterator[tuple[str, list[tuple[int, bytes]]]]:
        files = [file for file in self.files if not file.endswith(".parquet")]
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            for start in track(range(0, len(files), READS_AT_ONCE), f"read {self.table.event_type} files"):
                chunk = files[start : start + READS_AT_ONCE]
                yield from zip(chunk, pool.map(lambda file: list(lines(self.store, file)), chunk), strict=True)


def _num_rows(path: Path) -> int:
    """Return the rows of a Parquet file; 1 if its footer is broken, so that reading it fails with a reason."""
    import polars as pl

    try:
        return max(1, int(pl.scan_parquet(path).select(pl.len()).collect().item()))
    except (pl.exceptions.PolarsError, OSError):
        return 1
