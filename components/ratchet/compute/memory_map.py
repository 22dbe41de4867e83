"""Tables that lie on disk and are used as if they were in memory: where that runs short, the kernel drops their pages.

Texts are most of what a dataset is made of, and each is looked at a few times only; what is decided on, keys and
numbers, stays in memory.
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl


def memory_mapped_frame(parts: "Iterable[pl.LazyFrame]") -> "pl.DataFrame":
    """The rows of all parts, of which there is one at least, in order; null where a part lacks a column."""
    import polars as pl

    with tempfile.TemporaryDirectory(prefix="ratchet-mapped-") as folder:  # what is mapped outlives its name
        found = [_memory_map(part, Path(folder) / str(number)) for number, part in enumerate(parts)]
    return pl.concat(found, how="diagonal", rechunk=False)


def _memory_map(part: "pl.LazyFrame", file: Path) -> "pl.DataFrame":
    import polars as pl
    import pyarrow as pa

    part.sink_ipc(file, compression="uncompressed")
    with pa.memory_map(str(file)) as source:
        rows = pl.from_arrow(pa.ipc.open_file(source).read_all(), rechunk=False)
    assert isinstance(rows, pl.DataFrame)
    return rows
