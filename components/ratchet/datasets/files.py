"""The files of a dataset: tables on keys, with their texts, written by row group; copies behind the rows trained on."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl

from ratchet.compute.parquet import ROW_GROUP_ROWS, write_parquet
from ratchet.config import Config
from ratchet.datasets.augment import with_typos
from ratchet.datasets.interning import Interned
from ratchet.datasets.materialize import COUNTED, held_out, is_trained_on, write_out

WRITERS = 2  # each holds the texts of a row group


def write_files(
    folder: Path, files: dict[str, pl.DataFrame], triplets: Interned, config: Config
) -> dict[str, pl.DataFrame]:
    """Write `folder/<name>.parquet` for each table; what each file holds, but for texts and votes."""
    settings = config.build_datasets
    apart = held_out(files, triplets) if settings.augment_share else pl.Series(dtype=pl.String)

    def write(name: str, table: pl.DataFrame) -> pl.DataFrame:
        path = folder / f"{name}.parquet"
        if not (settings.augment_share and is_trained_on(name)):
            write_parquet(_stretches(name, table, triplets), path)
            return table.with_columns(synthetic=pl.lit(False)).select(COUNTED)
        rows = write_out(name, table, triplets)
        rows = with_typos(rows, settings.augment_share, config.seed, held_out=apart, near=settings.near_duplicate)
        write_parquet(rows, path)
        return rows.select(COUNTED)

    with ThreadPoolExecutor(WRITERS) as pool:
        return dict(zip(files, pool.map(write, files, files.values()), strict=True))


def _stretches(name: str, table: pl.DataFrame, triplets: Interned) -> Iterator[pl.DataFrame]:
    for first in range(0, max(1, len(table)), ROW_GROUP_ROWS):
        yield write_out(name, table[first : first + ROW_GROUP_ROWS], triplets)
