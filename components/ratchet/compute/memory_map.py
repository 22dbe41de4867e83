"""Memory-map tables from disk: when memory runs short, the kernel drops their pages.

For the texts of a dataset, which are most of its bytes and are read a few times each.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def memory_mapped_frame(parts: "Iterable[pl.LazyFrame]") -> "pl.DataFrame":
    """Return the rows of all parts, in order, memory-mapped; null where one lacks a column. Needs at least one part."""
    import polars as pl

    with tempfile.TemporaryDirectory(prefix="ratchet-mapped-") as folder:  # the mapping outlives the deleted file
        frames = [_memory_map(part, Path(folder) / str(number)) for number, part in enumerate(parts)]
    return pl.concat(frames, how="diagonal", rechunk=False)


def _memory_map(part: "pl.LazyFrame", file: Path) -> "pl.DataFrame":
    import polars as pl
    import pyarrow as pa

    part.sink_ipc(file, compression="uncompressed")
    with pa.memory_map(str(file)) as source:
        rows = pl.from_arrow(pa.ipc.open_file(source).read_all(), rechunk=False)
    assert isinstance(rows, pl.DataFrame)
    return rows
