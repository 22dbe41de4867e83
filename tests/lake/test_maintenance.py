import os
import time
from pathlib import Path

import polars as pl
import pytest

from ratchet.errors import UserError
from ratchet.lake import tables
from ratchet.lake.maintenance import SAFE_HOURS, compact, snapshots
from ratchet.lake.schema import FEEDBACK
from ratchet.store import LocalStore
from support.lake_tables import fingerprint_digest


def rows(name: str) -> pl.DataFrame:
    return pl.DataFrame([{"feedback_id": name, "value_num": 1.0}], FEEDBACK.schema)


@pytest.fixture
def table(lake: LocalStore) -> LocalStore:
    """A table of five collections, a file each."""
    for number, name in enumerate("abcde", start=1):
        tables.append(lake, FEEDBACK, [rows(name)], number)
    return lake


def data_files(lake: LocalStore) -> list[Path]:
    return list((lake.path / FEEDBACK.key).glob("*.parquet"))


def test_compaction_changes_files_and_nothing_else(table: LocalStore):
    before = fingerprint_digest(tables.scan(table, FEEDBACK, 5).collect())
    done = compact(table, retention_hours=168)["feedback"]
    assert (done.files_before, done.files_after) == (5, 1)
    assert fingerprint_digest(tables.scan(table, FEEDBACK, 5).collect()) == before
    assert tables.scan(table, FEEDBACK, 2).collect()["feedback_id"].sort().to_list() == ["a", "b"]
    assert tables.last_collection(table, FEEDBACK) == 5


def test_collections_go_on_after_compaction_and_count_once(table: LocalStore):
    compact(table, retention_hours=168)
    for number, name in ((5, "e"), (6, "f"), (6, "f")):
        tables.append(table, FEEDBACK, [rows(name)], number)
    assert tables.scan(table, FEEDBACK, 6).collect().height == 6


def test_files_within_the_retention_stay_so_that_their_version_can_be_read(table: LocalStore):
    compact(table, retention_hours=SAFE_HOURS)
    assert len(data_files(table)) == 6
    version = [one.version for one in snapshots(table, "feedback") if one.operation == "WRITE"][-1]
    assert pl.read_delta(str(table.path / FEEDBACK.key), version=version).height == 5


def test_what_a_killed_writer_left_half_written_goes_once_it_is_old(table: LocalStore):
    folder = table.path / FEEDBACK.key
    for name, age_s in ((".old", 10 * 86_400), (".new", 60)):
        (folder / name).write_bytes(b"PAR1")
        os.utime(folder / name, (time.time() - age_s,) * 2)
    assert compact(table, retention_hours=168)["feedback"].files_removed == 1
    assert [path.name for path in folder.glob(".*")] == [".new"]


def test_a_retention_that_endangers_a_running_collector_is_refused(table: LocalStore):
    with pytest.raises(UserError, match="a retention of 0 hours"):
        compact(table, retention_hours=0)


def test_snapshots_are_told_in_order(table: LocalStore):
    found = snapshots(table, "feedback")
    assert [one.version for one in found] == [0, 1, 2, 3, 4, 5]
    assert [one.operation for one in found] == ["CREATE TABLE", *["WRITE"] * 5]
    with pytest.raises(UserError, match="no such table"):
        snapshots(table, "votes")
