import json

import pytest
from typer.testing import CliRunner

from ratchet.collection.collect_triplets import STEP
from ratchet.config import Config
from ratchet.ingest.landing import land
from ratchet.monitoring.lake_status import Day, status
from ratchet.step import run_step
from ratchet.store import Store
from ratchet_pipelines.cli.lake import lake_app
from support.event_factory import NOW_S, interaction, vote


@pytest.fixture
def collected(lake: Store) -> Store:
    """Two days collected, with something kept out of each kind; a file that landed since."""
    land(lake, [interaction("a"), interaction("b", served_at=NOW_S + 86_400), vote("f", "a"), vote("g", "none")])
    land(lake, [vote("f", "a")], name="again")
    lake.create("events/feedback/dt=2026-01-01/raw.jsonl", b"{broken\n")
    run_step(STEP, Config(), {}, lake)
    land(lake, [vote("h", "b", at=NOW_S + 86_400)])
    return lake


def test_rows_days_lag_quarantine_and_drops(collected: Store):
    found = status(collected, now_s=NOW_S + 86_410)
    assert {name: table.rows for name, table in found.tables.items()} == {
        "interactions": 2,
        "feedback": 2,
        "triplets": 1,
    }
    assert found.days["interaction"] == {"2026-01-01": Day(files=1), "2026-01-02": Day(files=1)}
    assert found.days["feedback"] == {"2026-01-01": Day(files=3), "2026-01-02": Day(files=1, waiting=1)}
    assert (found.collections, found.uncollected_files, found.waiting_feedback) == (1, 1, 1)
    assert (found.newest_event_s, found.lag_s) == (NOW_S + 86_400, 10)
    assert (found.refused_lines, found.drops) == (1, {"collect_triplets": {"duplicate": 1}})


def test_a_lake_that_holds_nothing_has_a_status_and_stays_empty(lake: Store):
    found = status(lake, NOW_S)
    assert (found.collections, found.lag_s, found.tables["triplets"].rows) == (0, None, 0)
    assert not list(lake.list(""))


def test_programs_read_the_same_as_people(collected: Store):
    told = CliRunner().invoke(lake_app, ["status", "--lake", collected.root])
    assert told.exit_code == 0, told.output
    assert "feedback waiting for its interaction: 1" in told.output
    plain = CliRunner().invoke(lake_app, ["status", "--lake", collected.root, "--json"])
    assert json.loads(plain.stdout)["waiting_feedback"] == 1
