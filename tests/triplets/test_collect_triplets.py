import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from events import NOW_S, interaction, vote
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.events import Event
from ratchet.lake.landing import land
from ratchet.manifest import Manifest
from ratchet.step import run_step
from ratchet.store import S3Store, Store, open_store
from ratchet.triplets.collect_triplets import DROPS, STEP
from s3_server import s3_server

DAY_S = 86_400
CRASH = Path(__file__).with_name("crash.py")


def collect(lake: Store) -> Manifest:
    manifest = run_step(STEP, Config(), {}, lake).manifest
    assert all(set(flow.drops) <= set(DROPS) for flow in manifest.flows.values())
    return manifest


def counts(manifest: Manifest, unit: str) -> tuple[int, int, dict[str, int]]:
    flow = manifest.flows[unit]
    return flow.rows_in, flow.rows_out, flow.drops


def land_bytes(lake: Store, event_type: str, data: bytes, name: str = "raw") -> None:
    lake.create(f"events/{event_type}/dt=2026-01-01/{name}.jsonl", data)


def test_a_lake_without_events_names_the_import_command(lake: Store):
    with pytest.raises(UserError, match="ratchet import"):
        collect(lake)


def test_nothing_new_means_nothing_done(lake: Store):
    land(lake, [interaction("a"), vote("f", "a")])
    assert run_step(STEP, Config(), {}, lake).is_new
    assert not run_step(STEP, Config(), {}, lake).is_new


def test_an_event_seen_twice_counts_once(lake: Store):
    events: list[Event] = [interaction("a"), vote("f", "a")]
    land(lake, events, name="one")
    land(lake, events, name="two")
    manifest = collect(lake)
    assert counts(manifest, "interactions") == (2, 1, {"duplicate": 1})
    assert counts(manifest, "feedback") == (2, 1, {"duplicate": 1})
    land(lake, events, name="three")
    assert counts(collect(lake), "feedback") == (1, 0, {"duplicate": 1})


def test_feedback_waits_for_its_interaction(lake: Store):
    land(lake, [vote("f", "a"), interaction("b")])
    assert counts(collect(lake), "feedback") == (1, 0, {"waiting_for_interaction": 1})
    land(lake, [interaction("a")])
    manifest = collect(lake)
    assert counts(manifest, "feedback") == (1, 1, {})
    assert manifest.outputs["triplets"].rows == 1


def test_feedback_that_waited_too_long_is_an_orphan_once(lake: Store):
    land(lake, [vote("f", "a"), interaction("b")])
    collect(lake)
    land(lake, [interaction("c", served_at=NOW_S + 31 * DAY_S)])
    assert counts(collect(lake), "feedback") == (1, 0, {"orphan": 1})
    land(lake, [interaction("a")])
    manifest = collect(lake)
    assert counts(manifest, "feedback") == (0, 0, {})
    assert manifest.outputs["triplets"].rows == 0


@pytest.mark.parametrize(
    "line",
    [
        vote("f", "a").model_dump_json().encode()[:40],
        vote("f", "a").model_dump_json().encode().replace(b"judge", b"\xff\xfe"),
        b'{"feedback_id": "f"}',
        b'{"feedback_id":"f","interaction_id":"a","subject_id":"s","kind":"thumb","value":[1],"created_at":1}',
        b'{"feedback_id":"f","interaction_id":"a","subject_id":"s","kind":"cheer","value":1,"created_at":1}',
        b"[" * 5000,
        b"\x00",
    ],
    ids=["truncated", "not-utf8", "fields-missing", "wrong-type", "unknown-kind", "deep", "nul"],
)
def test_a_line_that_is_no_event_is_kept_and_stops_nothing(lake: Store, line: bytes):
    good = vote("g", "a").model_dump_json().encode()
    land(lake, [interaction("a")])
    land_bytes(lake, "feedback", good + b"\n" + line)
    manifest = collect(lake)
    assert counts(manifest, "feedback") == (2, 1, {"malformed": 1})
    [key] = manifest.facts["refused"]
    record = json.loads(lake.read(key))
    assert base64.b64decode(record["bytes"]) == line
    assert (record["file"], record["offset"]) == ("events/feedback/dt=2026-01-01/raw.jsonl", len(good) + 1)
    assert record["why"]


def test_numbers_too_large_for_the_table_are_malformed(lake: Store):
    line = interaction("a").model_dump_json().replace('"prompt_tokens":0', f'"prompt_tokens":{2**63}')
    land_bytes(lake, "interaction", line.encode())
    assert counts(collect(lake), "interactions") == (1, 0, {"malformed": 1})


def test_how_events_are_spread_over_collections_does_not_change_the_content(tmp_path: Path):
    events = [interaction("a"), interaction("b"), vote("f", "a"), vote("g", "b", "preference", "a"), vote("h", "b")]
    at_once, one_by_one = open_store(tmp_path / "1"), open_store(tmp_path / "2")
    land(at_once, events)
    for event in reversed(events):
        land(one_by_one, [event])
        last = collect(one_by_one)
    assert collect(at_once).outputs == last.outputs
    assert last.outputs["triplets"].rows == 3


def test_a_lake_on_s3_gives_the_same_triplets(lake: Store, tmp_path: Path):
    batches = [[interaction("a"), vote("f", "a"), vote("g", "b")], [interaction("b"), vote("h", "a", "rating", 11)]]
    with s3_server("lake"):
        store = S3Store("s3://lake/prefix")
        for batch in batches:
            for place in (lake, store):
                land(place, batch)
            assert collect(store).outputs == collect(lake).outputs
        assert not run_step(STEP, Config(), {}, store).is_new
        store.client.close()


@pytest.fixture(scope="module")
def crashes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What lakes hold after crashes; more events land before the collector that comes after."""
    folder = tmp_path_factory.mktemp("crashes")
    first, later = folder / "first", folder / "later"
    served = [interaction(f"i{number}") for number in range(4)]
    votes = [vote(f"f{number}", f"i{number % 4}") for number in range(6)]
    land(open_store(first), [*served, *votes, vote("waits", "late")])
    land_bytes(open_store(first), "feedback", b"{broken")
    land(open_store(later), [interaction("late"), *votes[:2], vote("f9", "i1", "preference", "i2")])
    done = subprocess.run([sys.executable, CRASH, first, later], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_an_undisturbed_collector_counts_each_event_once(crashes: dict[str, Any]):
    assert crashes["clean"]["triplets"] == ["f0", "f1", "f2", "f3", "f4", "f5", "f9", "waits"]
    assert crashes["clean"]["interactions"] == ["i0", "i1", "i2", "i3", "late"]
    assert crashes["clean"]["feedback"] == crashes["clean"]["triplets"]


@pytest.mark.parametrize(("how", "times"), [("killed", 12), ("full", 3), ("together", 1)])
def test_a_collector_killed_on_a_full_disk_or_in_company_leaves_the_same_lake(
    crashes: dict[str, Any], how: str, times: int
):
    assert crashes[how] == [crashes["clean"]] * times
