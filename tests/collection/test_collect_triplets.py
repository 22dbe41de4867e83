import base64
import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from benchmarks.planted_events import collect_twice, plant

from ratchet.collection import decode_json
from ratchet.collection.collect_triplets import STEP
from ratchet.collection.exactly_once import collect as collect_planned
from ratchet.collection.intents import plan_collections
from ratchet.collection.records import DROPS
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.events import Event, Feedback, Interaction
from ratchet.ingest.bulk import land_rows
from ratchet.ingest.landing import land, landed
from ratchet.lake import tables
from ratchet.lake.schema import FEEDBACK, INTERACTIONS, TRIPLETS
from ratchet.manifest import Manifest
from ratchet.step import run_step
from ratchet.store import S3Store, Store, open_store
from support.event_factory import NOW_S, interaction, vote
from support.lake_tables import read_triplets
from support.s3_server import s3_server

DAY_S = 86_400
CRASH = Path(__file__).parents[1] / "support" / "collect_crash.py"


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
    line = interaction("a").model_dump_json().replace('"prompt_tokens":null', f'"prompt_tokens":{2**63}')
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


def as_parquet(lake: Store, events: list[Event]) -> None:
    """Land the events as rows, in one file a type and day."""
    for fast, table in ((decode_json.interactions, INTERACTIONS), (decode_json.feedback, FEEDBACK)):
        kind = Interaction if table is INTERACTIONS else Feedback
        rows, _ = fast([event.model_dump_json().encode() for event in events if isinstance(event, kind)])
        land_rows(lake, table, rows)


def many_events(num: int = 60) -> list[Event]:
    """Votes of every kind on answers that are there, elsewhere or nowhere, some of it twice and some of it changed."""
    served = [interaction(f"i{n}", response=f"answer {n % 7}", served_at=NOW_S + n) for n in range(num)]
    votes = [
        vote(f"f{n}", f"i{n * 7 % (num + 5)}", *(("thumb", 1), ("preference", f"i{n}"), ("correction", "so"))[n % 3])
        for n in range(2 * num)
    ]
    changed = [interaction("i3", response="other", served_at=NOW_S - 1), vote("f4", "i4", value=-1, at=NOW_S - 1)]
    return [*served, *votes, *served[:9], *votes[:9], *changed]


def test_the_same_events_give_the_same_triplets_however_they_come(tmp_path: Path):
    events = many_events()
    lakes = [open_store(tmp_path / name) for name in ("lines", "reversed", "files", "parquet", "days")]
    land(lakes[0], events, name="all")
    land(lakes[1], events[::-1], name="all")
    for number, event in enumerate(events):
        land(lakes[2], [event], name=f"{number:03d}")
    as_parquet(lakes[3], events)
    manifests = [collect(lake) for lake in lakes[:4]]
    for part in (events[-20:], events[:-20]):  # the first of an id counts, so what was changed has to come first
        land(lakes[4], part, name=f"part-{len(part)}")
        last = collect(lakes[4])
    assert {manifest.outputs["triplets"] for manifest in [*manifests, last]} == {manifests[0].outputs["triplets"]}
    assert manifests[0].outputs["triplets"].rows == 91
    assert all(manifest.flows == manifests[0].flows for manifest in manifests)


@pytest.mark.parametrize("bucket_rows", [1, 15, 10_000])
def test_buckets_do_not_show_in_the_triplets(tmp_path: Path, bucket_rows: int):
    lakes = [open_store(tmp_path / name) for name in ("whole", "buckets")]
    for lake in lakes:
        land(lake, many_events())
    whole = collect(lakes[0])
    done = collect_planned(lakes[1], plan_collections(lakes[1], late_days=30)[0], bucket_rows=bucket_rows)
    assert (done.interactions, done.feedback) == (whole.flows["interactions"], whole.flows["feedback"])
    assert collect(lakes[1]).outputs == whole.outputs


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_do_not_show_in_the_triplets(tmp_path: Path, lake: Store, threads: str):
    for place in (lake, open_store(tmp_path / "other")):
        land(place, many_events())
    command = [sys.executable, "-m", "ratchet_pipelines.cli", "collect_triplets", "--lake", str(tmp_path / "other")]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "POLARS_MAX_THREADS": threads})
    assert collect(open_store(tmp_path / "other")).outputs == collect(lake).outputs


def test_a_broken_parquet_file_is_told_of_and_stops_nothing(lake: Store):
    as_parquet(lake, [interaction("a"), vote("f", "a")])
    whole = lake.read(landed(lake, "feedback")[0])
    lake.create("events/feedback/dt=2026-01-01/cut.parquet", whole[: len(whole) // 2])
    lake.create("events/feedback/dt=2026-01-01/noise.parquet", b"PAR1" + b"\x00" * 400 + b"PAR1")
    lake.create("events/feedback/dt=2026-01-01/pages.parquet", whole[:4] + b"\xff" * 300 + whole[304:])
    frame = io.BytesIO()
    pl.DataFrame({"feedback_id": ["x"]}).write_parquet(frame)
    lake.create("events/feedback/dt=2026-01-01/columns.parquet", frame.getvalue())
    manifest = collect(lake)
    assert counts(manifest, "feedback") == (5, 1, {"malformed": 4})
    [key] = manifest.facts["refused"]
    kept = [json.loads(line) for line in lake.read(key).splitlines()]
    assert sorted(Path(one["file"]).stem for one in kept) == ["columns", "cut", "noise", "pages"]


def test_a_row_of_a_parquet_file_that_is_no_event_is_kept_with_its_place(lake: Store):
    rows, _ = decode_json.feedback([vote(name, "a").model_dump_json().encode() for name in "fgh"])
    land(lake, [interaction("a")])
    is_second = pl.col("feedback_id") == "g"
    land_rows(lake, FEEDBACK, rows.with_columns(kind=pl.when(is_second).then(pl.lit("cheer")).otherwise("kind")))
    manifest = collect(lake)
    assert counts(manifest, "feedback") == (3, 2, {"malformed": 1})
    [key] = manifest.facts["refused"]
    record = json.loads(lake.read(key))
    assert (record["offset"], json.loads(base64.b64decode(record["bytes"]))["feedback_id"]) == (1, "g")
    assert "cheer" not in record["why"]


def test_feedback_waits_over_many_collections(lake: Store):
    land(lake, [vote("f", "a"), vote("g", "b", "preference", "a"), interaction("b")])
    collect(lake)
    for day in range(3):
        land(lake, [interaction(f"other{day}", served_at=NOW_S + day)])
        assert counts(collect(lake), "feedback") == (2, 0, {"waiting_for_interaction": 2})
    land(lake, [interaction("a")])
    manifest = collect(lake)
    assert counts(manifest, "feedback") == (2, 2, {})
    found = read_triplets(lake, manifest.outputs["triplets"].digest, 2)
    assert found["other_response"].to_list() == [None, "It is good."]


def test_a_vote_on_an_answer_of_long_ago_finds_it(lake: Store):
    land(lake, [interaction("a"), interaction("b")])
    collect(lake)
    land(lake, [interaction("c", served_at=NOW_S + 400 * DAY_S)])
    collect(lake)
    land(lake, [vote("f", "a", at=NOW_S + 400 * DAY_S)])
    assert counts(collect(lake), "feedback") == (1, 1, {})


def test_a_store_that_stumbles_loses_nothing(lake: Store):
    """It is too busy (503), and it knows not yet which of two writers wins (409)."""
    events = many_events(20)
    with s3_server("flaky"):
        store = S3Store("s3://flaky/prefix")
        for batch in (events[::2], events[1::2]):
            for place in (lake, store):
                land(place, batch)
            assert collect(store).outputs == collect(lake).outputs
        assert tables.scan(store, TRIPLETS, 2).collect().height == collect(lake).outputs["triplets"].rows
        store.client.close()


def test_planted_repeats_late_votes_orphans_and_broken_rows_are_counted_exactly(lake: Store):
    scores = collect_twice(lake, plant(3000))
    assert min(score.planted for score in scores.values()) > 10
    assert {name: (score.recall, score.precision) for name, score in scores.items()} == dict.fromkeys(scores, (1, 1))


@pytest.mark.parametrize("place", ["local", "s3"])
def test_four_writers_at_once_lose_nothing(tmp_path: Path, place: str):
    events = many_events(40)
    alone = open_store(tmp_path / "alone")
    land(alone, events)
    with s3_server("lake") if place == "s3" else contextlib.nullcontext():
        root = "s3://lake/prefix" if place == "s3" else str(tmp_path / "shared")
        program = [sys.executable, "-m", "ratchet_pipelines.cli", "collect_triplets", "--lake", root]
        shared = open_store(root)
        land(shared, events[::4], name="a")
        writers = [subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(4)]
        for start in (1, 2, 3):
            land(shared, events[start::4], name="abcd"[start])
        ends = [(writer.communicate()[1], writer.returncode) for writer in writers]
        assert [code for _, code in ends] == [0] * 4, ends
        together = collect(shared)
        found = tables.scan(shared, TRIPLETS, 99).collect()
        if place == "s3":
            shared.client.close()  # type: ignore[attr-defined]
    expected = collect(alone).outputs["triplets"]
    assert found["triplet_id"].is_unique().all()
    assert (together.outputs["triplets"].rows, found.height) == (expected.rows, expected.rows)


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
