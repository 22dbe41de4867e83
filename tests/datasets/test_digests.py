"""The same events give the same triplets and dataset, byte for byte, however they came and were worked on."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl
import pytest
from benchmarks.generated_votes import land_generated

from ratchet.collection import exactly_once
from ratchet.collection.collect_triplets import STEP as COLLECT
from ratchet.collection.intents import plan_collections
from ratchet.config import Config
from ratchet.ingest.bulk import land_rows
from ratchet.ingest.landing import landed
from ratchet.lake.schema import FEEDBACK, INTERACTIONS, Table
from ratchet.step import Step, run_step
from ratchet.store import S3Store, Store, open_store
from ratchet.validation import schedule_parts
from ratchet.validation.part_store import done_keys
from ratchet_pipelines.graph import STEPS
from support.s3_server import s3_server

NUM_EVENTS = 6000
TABLES = (INTERACTIONS, FEEDBACK)


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A lake in which generated events have landed, some of them twice."""
    lake = open_store(tmp_path_factory.mktemp("events"))
    land_generated(lake, NUM_EVENTS)
    return lake


@pytest.fixture(scope="module")
def expected(events: Store) -> dict[str, str]:
    return digests(events)


def digests(lake: Store, steps: Sequence[Step] = STEPS[:3]) -> dict[str, str]:
    """Of everything that the steps make of the lake's events."""
    done, found = {}, {}
    for step in steps:
        done[step.name] = run_step(step, Config(), {name: done[name] for name in step.inputs}, lake).manifest
        found |= {name: made.digest for name, made in done[step.name].outputs.items()}
    return found


def rows(events: Store, table: Table) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(events.local(key)) for key in landed(events, table.event_type)])


def land_slices(events: Store, lake: Store, change: Callable[[pl.DataFrame], pl.DataFrame], size: int) -> None:
    for table in TABLES:
        for some in change(rows(events, table)).iter_slices(size):
            land_rows(lake, table, some)


def test_there_is_something_to_compare(events: Store, expected: dict[str, str]):
    assert set(expected) == {"triplets", "valid", "quarantine", "daily_failures", "dataset"}
    folder = events.local(f"datasets/{expected['dataset']}")
    names = [f"{kind}-{side}" for kind in ("sft", "dpo", "kto") for side in ("train", "eval")]
    assert min(len(pl.read_parquet(folder / f"{name}.parquet")) for name in names) > 3


def test_order_and_number_of_files_do_not_matter(events: Store, expected: dict[str, str], lake: Store):
    land_slices(events, lake, lambda found: found.sample(fraction=1, shuffle=True, seed=7), size=700)
    assert digests(lake) == expected


def test_a_lake_that_grew_in_three_collections_is_the_same(events: Store, expected: dict[str, str], lake: Store):
    for part in range(3):
        for table in reversed(TABLES) if part == 1 else TABLES:
            land_rows(lake, table, rows(events, table).gather_every(3, offset=part))
        run_step(COLLECT, Config(), {}, lake)
    assert digests(lake) == expected


def test_a_lake_that_was_validated_after_each_of_three_collections_is_the_same(
    events: Store, expected: dict[str, str], lake: Store
):
    for part in range(3):
        for table in TABLES:
            land_rows(lake, table, rows(events, table).gather_every(3, offset=part))
        found = digests(lake, STEPS[:2])
        assert (found.items() <= expected.items()) == (part == 2)
    assert digests(lake) == expected


@pytest.mark.slow
def test_parts_cut_small_and_made_by_further_processes_are_the_same(
    events: Store, expected: dict[str, str], lake: Store, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(schedule_parts, "SLICE_ROWS", 300)
    monkeypatch.setattr(schedule_parts, "PROCESS_ROWS", 1)
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 2)
    land_slices(events, lake, lambda found: found, size=10**6)
    assert digests(lake) == expected
    assert len(done_keys(lake)) > 2


@pytest.mark.parametrize("num_buckets", [1, 8])
def test_the_number_of_buckets_does_not_matter(events: Store, expected: dict[str, str], lake: Store, num_buckets: int):
    land_slices(events, lake, lambda found: found, size=10**6)
    exactly_once.collect(
        lake, plan_collections(lake, late_days=30)[0], bucket_rows=-(-rows(events, FEEDBACK).height // num_buckets)
    )
    assert digests(lake) == expected


@pytest.mark.slow
def test_a_lake_on_s3_is_the_same(events: Store, expected: dict[str, str]):
    with s3_server("lake"):
        lake = S3Store("s3://lake/prefix")
        land_slices(events, lake, lambda found: found, size=10**6)
        assert digests(lake) == expected
        lake.client.close()


def test_making_it_twice_changes_nothing(events: Store, expected: dict[str, str]):
    done = {step.name: run_step(step, Config(), {}, events).manifest for step in STEPS[:1]}
    for step in STEPS[1:3]:
        inputs = {name: done[name] for name in step.inputs}
        done[step.name] = run_step(step, Config(), inputs, events).manifest
        again = step.run(Config(), inputs, events)
        assert {name: made.digest for name, made in again.outputs.items()}.items() <= expected.items()


@pytest.mark.slow
def test_nothing_rests_on_the_order_of_polars_hashes(
    events: Store, expected: dict[str, str], lake: Store, monkeypatch: pytest.MonkeyPatch
):
    """They change from one version of Polars to the next: here they come with another seed."""
    before = pl.Series(["a"]).hash().item()
    of = pl.Expr.hash
    monkeypatch.setattr(pl.Expr, "hash", lambda values, seed=0: of(values, seed=seed + 12345))
    assert before != pl.Series(["a"]).hash().item() == pl.select(pl.lit("a").hash()).item()
    land_slices(events, lake, lambda found: found, size=10**6)
    assert digests(lake) == expected


@pytest.mark.slow
def test_one_thread_is_as_good_as_two(events: Store, expected: dict[str, str], lake: Store):
    """Polars decides on its threads when it is imported, so this run has a process of its own."""
    land_slices(events, lake, lambda found: found, size=10**6)
    program = "import sys, test_digests as tests; print(tests.digests(tests.open_store(sys.argv[1])))"
    path = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, Path(__file__).parents[1], *sys.path))
    environment = {**os.environ, "POLARS_MAX_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", program, lake.root], env=environment, capture_output=True, check=True)
    assert done.stdout.decode().splitlines()[-1] == str(expected)
