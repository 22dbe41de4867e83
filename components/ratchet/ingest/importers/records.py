"""The records of a file, each as JSON bytes with its place in the file.

JSON lines and Parquet are streamed, whatever their size. A JSON array, an API's page (`{"data": [...]}`) and indented
JSON are read whole. Every byte of a file that is no separator is part of some record: what is broken is for the
reader of records to refuse.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ratchet.errors import UserError

MAX_LINE_BYTES = 64 << 20  # a longer line is read in pieces, each refused: no file of one line fills the memory
HEAD_BYTES = 4096
PARQUET_ROWS = 1024  # rows decoded at once
# Quotes inside a JSON string are escaped, so a brace before a bare quote opens an object even in a broken file.
OBJECT = re.compile(r'\{\s*+"')
CONTENT = re.compile(r"[^\s,\[]")
# How the APIs of Langfuse, Phoenix and LangSmith wrap what they list, and what may follow the list.
PAGE = re.compile(r'\{\s*+"(?:data|runs)"\s*+:\s*+\[')
VALUE = r'(?:\{[^{}]*+\}|\[[^\[\]{}]*+\]|"[^"]*+"|[^\s"{}\[\],]++)'
PAGE_END = re.compile(rf'\](?:\s*+,\s*+"[^"]*+"\s*+:\s*+{VALUE})*+\s*+\}}')
READ_WHOLE = re.compile(rf"\s*+(?:\[|{PAGE.pattern}|\{{[ \t\r]*+\n)".encode())


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record's bytes, where they start (of Parquet: the row's number), and how much of the file they stand for."""

    offset: int
    data: bytes
    size_bytes: float


def records(path: Path) -> Iterator[SourceRecord]:
    """Each record of a JSON, JSON lines or Parquet file. Raises UserError if there is none or it is packed."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if not head:
        raise UserError(f"{path} is empty; nothing to import")
    if head.startswith(b"\x1f\x8b"):
        raise UserError(f"{path} is packed with gzip; unpack it first: gunzip {path}")
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
    """Each value of arrays and pages; one that is broken reaches to where the next object opens."""
    text = data.decode("latin-1")  # a character a byte: offsets stay true, and JSON's own signs are ASCII
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
    """Where the next value starts, and whether that is within a page."""
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
            f"{path} is no whole Parquet file: {error}. {number} rows were read before; export it anew"
        ) from None


def _row(row: Any) -> bytes:
    try:
        return json.dumps(row.to_pylist()[0], default=_plain, ensure_ascii=False).encode()
    except (ValueError, OverflowError) as error:  # a text that is not UTF-8, a time beyond the calendar
        return f"this row cannot be read: {error}".encode()


def _plain(value: Any) -> str:
    return str(value.isoformat()) if hasattr(value, "isoformat") else str(value)
