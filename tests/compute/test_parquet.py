from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from polars.testing import assert_frame_equal

from ratchet.compute.parquet import ROW_GROUP_ROWS, write_parquet


def test_rows_come_back_as_they_were(tmp_path: Path):
    rows = pl.DataFrame(
        {
            "kind": ["thumb", None],
            "ids": [["a", "b"], []],
            "text": ["naïve", ""],
            "weight": [0.5, None],
            "ok": [True, None],
        }
    )
    write_parquet(pl.concat([rows, rows.clear(), rows]), tmp_path / "rows.parquet")
    assert_frame_equal(pl.read_parquet(tmp_path / "rows.parquet"), pl.concat([rows, rows]))


@pytest.mark.parametrize(("sorted_by", "is_told"), [("id", True), (None, False)])
def test_the_range_of_a_sorted_column_is_told_by_row_group(tmp_path: Path, sorted_by: str | None, is_told: bool):
    ids = pl.select(id=pl.int_range(ROW_GROUP_ROWS + 1).cast(pl.String).str.zfill(9))
    write_parquet(ids, tmp_path / "ids.parquet", sorted_by=sorted_by)
    found = pq.ParquetFile(tmp_path / "ids.parquet").metadata
    assert found.num_row_groups == 2
    assert (found.row_group(1).column(0).statistics is not None) == is_told


@pytest.mark.parametrize("size", [1, ROW_GROUP_ROWS // 2 + 1, ROW_GROUP_ROWS, 3 * ROW_GROUP_ROWS])
def test_the_file_does_not_tell_in_what_stretches_its_rows_came(tmp_path: Path, size: int):
    num_rows = 2 if size == 1 else 2 * ROW_GROUP_ROWS + 7
    rows = pl.select(id=pl.int_range(num_rows).cast(pl.String), kind=pl.lit("thumb"))
    write_parquet(rows, tmp_path / "whole.parquet")
    write_parquet(rows.iter_slices(size), tmp_path / "stretches.parquet")
    assert (tmp_path / "stretches.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
