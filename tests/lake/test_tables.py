"""The append is what makes a collection count once; a peer here is another writer that got there first."""

import dataclasses
import errno
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from deltalake import DeltaTable

from ratchet.lake import tables
from ratchet.lake.schema import FEEDBACK
from ratchet.store import Store


def feedback_rows(*ids: str):
    return pl.DataFrame([{"feedback_id": name, "kind": "thumb", "value_num": 1.0} for name in ids], FEEDBACK.schema)


def ids(lake: Store, up_to: int) -> list[str]:
    return tables.scan(lake, FEEDBACK, up_to).collect()["feedback_id"].sort().to_list()


def test_a_collection_is_appended_once(lake: Store):
    for _ in range(2):
        tables.append(lake, FEEDBACK, [feedback_rows("a", "b")], collection=1)
    assert ids(lake, 1) == ["a", "b"]
    assert tables.last_collection(lake, FEEDBACK) == 1


def test_a_late_writer_does_not_repeat_a_collection_that_others_went_past(lake: Store):
    tables.append(lake, FEEDBACK, [feedback_rows("a")], collection=1)
    tables.append(lake, FEEDBACK, [feedback_rows("b")], collection=2)
    tables.append(lake, FEEDBACK, [feedback_rows("a")], collection=1)
    assert ids(lake, 2) == ["a", "b"]


def test_a_writer_overtaken_before_its_commit_finds_the_work_done(lake: Store, monkeypatch: pytest.MonkeyPatch):
    tables.append(lake, FEEDBACK, [feedback_rows()], collection=1)
    uri, _ = lake.delta_uri(FEEDBACK.key)
    stale = DeltaTable(uri)
    tables.append(lake, FEEDBACK, [feedback_rows("a")], collection=2)
    opened = iter([stale])
    open_now = tables.open_table
    monkeypatch.setattr(tables, "open_table", lambda *place: next(opened, None) or open_now(*place))
    tables.append(lake, FEEDBACK, [feedback_rows("a")], collection=2)
    assert next(opened, None) is None, "the stale handle was not used"
    assert ids(lake, 2) == ["a"]


def test_of_many_creators_one_wins(lake: Store):
    """Delta's own create lets another commit its metadata after the winner, which fails appends under way."""
    for round_number in range(10):
        table = dataclasses.replace(FEEDBACK, key=f"tables/round-{round_number}")
        with ThreadPoolExecutor(4) as creators:
            opened = list(creators.map(lambda _, table=table: tables.open_table(lake, table).version(), range(4)))
        assert opened == [0] * 4
        assert tables.open_table(lake, table).version() == 0


def test_an_earlier_state_stays_readable(lake: Store):
    tables.append(lake, FEEDBACK, [feedback_rows("a")], collection=1)
    tables.append(lake, FEEDBACK, [feedback_rows("b")], collection=2)
    assert ids(lake, 1) == ["a"]


def test_an_empty_collection_counts_as_done(lake: Store):
    tables.append(lake, FEEDBACK, [feedback_rows()], collection=1)
    assert tables.last_collection(lake, FEEDBACK) == 1


def test_a_fault_among_the_rows_is_told_as_it_is_and_commits_nothing(lake: Store):
    def batches():
        yield feedback_rows("a")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        tables.append(lake, FEEDBACK, batches(), collection=1)
    assert tables.last_collection(lake, FEEDBACK) == 0


def test_rows_are_gone_through_although_they_are_committed_already(lake: Store):
    tables.append(lake, FEEDBACK, [feedback_rows("a")], collection=1)
    batches = iter([feedback_rows("a"), feedback_rows("b")])
    tables.append(lake, FEEDBACK, batches, collection=1)
    assert next(batches, None) is None


def test_a_lake_of_an_older_version_gains_the_new_columns(lake: Store):
    kept = {name: kind for name, kind in FEEDBACK.schema.items() if name != "comment"}
    tables.open_table(lake, dataclasses.replace(FEEDBACK, schema=kept))
    tables.append(lake, FEEDBACK, [feedback_rows("a").with_columns(comment=pl.lit("why"))], collection=1)
    assert tables.scan(lake, FEEDBACK, 1).collect()["comment"].to_list() == ["why"]


def test_earlier_rows_are_found_by_id(lake: Store):
    tables.append(lake, FEEDBACK, [feedback_rows("a", "b")], collection=1)
    tables.append(lake, FEEDBACK, [feedback_rows("c")], collection=2)
    found = pl.concat(tables.matching(lake, FEEDBACK, 1, pl.Series("feedback_id", ["b", "c", "b"])))
    assert found["feedback_id"].to_list() == ["b"]
