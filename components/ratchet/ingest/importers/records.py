"""Read the records of a file, each as JSON bytes with its offset.

JSON lines and Parquet are streamed. A JSON array, an API's page (`{"data": [...]}`) and indented JSON are read whole.
Every byte that is not a separator is part of a record: broken ones are left for the importer to refuse.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import UserError

MAX_LINE_BYTES = 64 << 20  # a longer line is read in pieces, each refused, so that one line cannot fill the memory
HEAD_BYTES = 4096
PARQUET_ROWS = 1024  # rows decoded at once
# Quotes inside a JSON string are escaped, so a brace before a bare quote opens an object even in a broken file.
OBJECT = re.compile(r'\{\s*+"')
CONTENT = re.compile(r"[^\s,\[]")
# The start of a page of the APIs of Langfuse, Phoenix and LangSmith, and its end after the list.
PAGE = re.compile(r'\{\s*+"(?:data|runs)"\s*+:\s*+\[')
VALUE = r'(?:\{[^{}]*+\}|\[[^\[\]{}]*+\]|"[^"]*+"|[^\s"{}\[\],]++)'
PAGE_END = re.compile(rf'\](?:\s*+,\s*+"[^"]*+"\s*+:\s*+{VALUE})*+\s*+\}}')
READ_WHOLE = re.compile(rf"\s*+(?:\[|{PAGE.pattern}|\{{[ \t\r]*+\n)".encode())


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record: its bytes, its offset (in Parquet the row number), and its share of the file in bytes."""

    offset: int
    data: bytes
    size_bytes: float


def records(path: Path) -> Iterator[SourceRecord]:
    """Yield each record of a JSON, JSON lines or Parquet file. Raises UserError if the file is empty or gzipped."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise UserError(f"{path} is empty; nothing to import")
    if head.startswith(b"\x1f\x8b"):
        raise UserError(f"{path} is compressed with gzip; decompress it first: gunzip {path}")
    if head.startswith(b"PAR1"):
        return _rows(path)
    if READ_WHOLE.match(head):
        return _values(path.read_bytes())
    return _lines(path)


def _lines(path: Path) -> Iterator[SourceRecord]:
    offset = 0
    with path.open("rb") as file:
        while line := file.readline(MAX_LINE_BYTES):
            if line.strip():
                yield SourceRecord(offset, line, len(line))
            offset += len(line)


def _values(data: bytes) -> Iterator[SourceRecord]:
    """Yield each value of arrays and pages; a broken one ends where the next object opens."""
    text = data.decode("latin-1")  # one character for each byte, so offsets stay valid; JSON's syntax is ASCII
    decoder = json.JSONDecoder()
    start, in_page = _skip(text, 0, False)
    while start < len(text):
        try:
            end = decoder.raw_decode(text, start)[1]
        except (ValueError, RecursionError):
            opening = OBJECT.search(text, start + 1)
            end = opening.start() if opening else len(text)
        yield SourceRecord(start, data[start:end], end - start)
        start, in_page = _skip(text, end, in_page)


def _skip(text: str, start: int, in_page: bool) -> tuple[int, bool]:
    """Return where the next value starts, and whether that is within a page."""
    while content := CONTENT.search(text, start):
        start = content.start()
        if in_page and (ended := PAGE_END.match(text, start)):
            start, in_page = ended.end(), False
        elif opened := PAGE.match(text, start):
            start, in_page = opened.end(), True
        elif text[start] == "]":
            start += 1
        else:
            return start, in_page
    return len(text), in_page


def _rows(path: Path) -> Iterator[SourceRecord]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            size_bytes = path.stat().st_size / max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(PARQUET_ROWS):
                for row in range(batch.num_rows):
                    yield SourceRecord(number, _row(batch.slice(row, 1)), size_bytes)
                    number += 1
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not a complete Parquet file: {error}. {number} rows were read before; export it again"
        ) from None


def _row(row: Any) -> bytes:
    try:
        return json.dumps(row.to_pylist()[0], default=_plain, ensure_ascii=False).encode()
    except (ValueError, OverflowError) as error:  # a text that is not UTF-8, a time beyond the calendar
        return f"this row cannot be read: {error}".encode()


def _plain(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
