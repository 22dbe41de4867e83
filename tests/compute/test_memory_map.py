import tempfile
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from ratchet.compute.memory_map import memory_mapped_frame

PARTS = [
    pl.DataFrame(
        {"text": ["a", None, "longer than twelve bytes"], "number": [1.5, 2.0, None], "ids": [["x"], [], None]}
    ),
    pl.DataFrame(schema={"text": pl.String, "number": pl.Float64, "ids": pl.List(pl.String)}),
    pl.DataFrame({"text": ["naïve"], "number": [0.0], "ids": [["y", "z"]]}),
]


def test_rows_are_those_of_all_parts_in_order():
    assert_frame_equal(memory_mapped_frame(part.lazy() for part in PARTS), pl.concat(PARTS))


def test_rows_outlive_their_files_and_leave_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = memory_mapped_frame(part.lazy() for part in PARTS)
    assert not list(tmp_path.iterdir())
    assert_frame_equal(rows.sort("number"), pl.concat(PARTS).sort("number"))


def test_a_column_that_a_part_lacks_is_null_there():
    rows = memory_mapped_frame([PARTS[0].lazy(), PARTS[2].lazy().drop("number")])
    assert rows["number"].to_list() == [1.5, 2.0, None, None]
