"""Parts of the validation are made once, whoever makes them and whatever stops them."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from benchmarks.planted import plant_broken, triplets
from deltalake import DeltaTable

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.lake.maintenance import compact
from ratchet.lake.schema import TRIPLETS
from ratchet.lake.valid_triplets import valid_files
from ratchet.manifest import Manifest
from ratchet.step import run_step, share_step
from ratchet.store import LocalStore, Store, open_store
from ratchet.validation import schedule_parts
from ratchet.validation.great_expectations import Disagreement
from ratchet.validation.part_store import done_keys
from ratchet.validation.validate_triplets import STEP
from support.collected_lake import bring, manifest

LENIENT = Config.model_validate({"validate_triplets": {"max_bad_share": 1, "parity_rows": 50}})
NUM_DAYS = 4


def days(number: int = NUM_DAYS) -> list[pl.DataFrame]:
    """A table with faults in it, collection by collection; each id once."""
    table, _ = plant_broken(triplets(400), each=1)
    table = table.drop_nulls("triplet_id").unique("triplet_id", keep="first", maintain_order=True)
    return [table.filter(pl.int_range(pl.len()) % number == day) for day in range(number)]


def grown(lake: Store, brought: list[pl.DataFrame]) -> Manifest:
    for number, some in enumerate(brought, start=1):
        bring(lake, number, some)
    return manifest(brought)


def validate(lake: Store, collected: Manifest, config: Config = LENIENT) -> Manifest:
    return run_step(STEP, config, {"collect_triplets": collected}, lake).manifest


def digests(made: Manifest) -> dict[str, str]:
    return {name: artifact.digest for name, artifact in made.outputs.items()}


def ids(lake: Store, made: Manifest, output: str = "valid") -> list[str]:
    files = valid_files(lake, made.outputs[output].uri)
    return pl.concat([pl.read_parquet(file) for file in files])["triplet_id"].sort().to_list()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows in each part that goes through the kernel, in this process."""
    process, seen = schedule_parts.process, []

    def watched(rows: pl.DataFrame, *more: object):
        seen.append(rows.height)
        return process(rows, *more)

    monkeypatch.setattr(schedule_parts, "process", watched)
    return seen


def test_a_new_day_makes_its_own_part_and_all_rows_are_accounted_for(lake: LocalStore, kernel: list[int]):
    brought = days()
    grown(lake, brought[:-1])
    validate(lake, manifest(brought[:-1]))
    assert kernel == [some.height for some in brought[:-1]]
    before = {key: lake.local(key).stat().st_mtime_ns for key in lake.list("parts")}
    bring(lake, NUM_DAYS, brought[-1])
    made = validate(lake, manifest(brought))
    assert kernel[NUM_DAYS - 1 :] == [brought[-1].height]
    assert before.items() <= {key: lake.local(key).stat().st_mtime_ns for key in lake.list("parts")}.items()
    flow = made.flows["triplets"]
    assert (flow.rows_in, flow.rows_out) == (sum(some.height for some in brought), len(ids(lake, made)))
    assert sorted(ids(lake, made) + ids(lake, made, "quarantine")) == sorted(pl.concat(brought)["triplet_id"])


def test_a_day_after_compaction_makes_its_own_part(lake: LocalStore, kernel: list[int]):
    brought = days(2)
    grown(lake, brought[:1])
    validate(lake, manifest(brought[:1]))
    bring(lake, 2, brought[1])
    compact(lake, retention_hours=168)
    validate(lake, manifest(brought))
    assert kernel == [some.height for some in brought]


def test_parts_are_made_anew_for_other_limits_but_not_for_another_share_of_bad_rows(lake: Store, kernel: list[int]):
    collected = grown(lake, days(1))
    for changes in ({}, {"max_bad_share": 0.9}, {"max_response_chars": 500}):
        settings = LENIENT.validate_triplets.model_copy(update=changes)
        validate(lake, collected, LENIENT.model_copy(update={"validate_triplets": settings}))
    assert len(kernel) == 2


KILLED = """
import os, signal, sys
from ratchet.validation import schedule_parts
from ratchet.store import open_store
import test_schedule_parts as tests

write, left = schedule_parts.write_part, [2]

def write_and_die(*arguments):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    write(*arguments)

schedule_parts.write_part = write_and_die
tests.validate(open_store(sys.argv[1]), tests.manifest(tests.days()))
"""


def test_a_killed_run_goes_on_where_it_stopped(lake: LocalStore, kernel: list[int]):
    brought = days()
    collected = grown(lake, brought)
    killed = subprocess.run(
        [
            sys.executable,
            "-c",
            f"import sys\nsys.path[:0] = {[str(Path(__file__).parent), *sys.path]}\n{KILLED}",
            lake.root,
        ]
    )
    assert killed.returncode == -9
    assert len(done_keys(lake)) == 2
    validate(lake, collected)
    assert kernel == [some.height for some in brought[2:]]


def test_two_shares_and_who_gathers_them_make_what_one_run_makes(lake: LocalStore, tmp_path: Path, kernel: list[int]):
    collected = grown(lake, days())
    lake.create(collected.uri, collected.model_dump_json().encode())
    alone = open_store(tmp_path / "alone")
    shutil.copytree(lake.root, alone.root)
    config = tmp_path / "ratchet.yaml"
    config.write_text("validate_triplets: {max_bad_share: 1, parity_rows: 50}")
    command = [
        sys.executable,
        "-m",
        "ratchet_pipelines.cli",
        "validate_triplets",
        "--lake",
        lake.root,
        "--config",
        config,
        "--in",
        f"collect_triplets={collected.uri}",
    ]
    started = [
        subprocess.Popen([*command, "--share", f"{number}/2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in (1, 2)
    ]
    told = [process.communicate() for process in started]
    words = [f"validate_triplets: share {number}/2, 2 parts made\n".encode() for number in (1, 2)]
    assert told == [(b"", said) for said in words]
    gathered = validate(lake, collected)
    assert kernel == []
    assert digests(gathered) == digests(validate(alone, collected))
    assert share_step(STEP, LENIENT, {"collect_triplets": collected}, lake, 1, 1) == 0


def test_processes_make_the_same_parts(lake: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: list[int]):
    alone = open_store(tmp_path / "alone")
    collected = grown(lake, days(1))
    here = validate(alone, grown(alone, days(1)))
    monkeypatch.setattr(schedule_parts, "PROCESS_ROWS", 1)
    monkeypatch.setattr(schedule_parts, "SLICE_ROWS", 150)
    monkeypatch.setattr(pl, "thread_pool_size", lambda: 2)
    assert digests(validate(lake, collected)) == digests(here)
    assert (len(done_keys(lake)), len(kernel)) == (-(-days(1)[0].height // 150), 1)


def test_a_table_changed_behind_our_back_is_refused_and_leaves_no_part(lake: LocalStore):
    brought = days(2)
    collected = grown(lake, brought)
    table = DeltaTable(lake.delta_uri(TRIPLETS.key)[0])
    was = table.version()
    table.update({"response": "'Something else.'"}, predicate="triplet_id = 'f-000000000'")
    with pytest.raises(UserError, match="no longer holds the"):
        validate(lake, collected)
    assert len(done_keys(lake)) == 1  # of the collection that is as it was
    assert not list(lake.list("validated"))
    table.restore(was)
    made = validate(lake, collected)
    responses = pl.concat(pl.read_parquet(file) for file in valid_files(lake, made.outputs["valid"].uri))["response"]
    assert "Something else." not in responses


def test_a_table_that_lost_rows_is_refused_whatever_was_made_of_them(lake: LocalStore):
    collected = grown(lake, days(2))
    validate(lake, collected)
    DeltaTable(lake.delta_uri(TRIPLETS.key)[0]).delete("triplet_id = 'f-000000000'")
    stricter = Config.model_validate({"validate_triplets": {"max_bad_share": 0.9, "parity_rows": 50}})
    with pytest.raises(UserError, match="no longer holds the"):
        validate(lake, collected, stricter)


def test_an_id_that_two_collections_brought_is_quarantined_in_both(lake: Store, kernel: list[int]):
    table = triplets(40)
    brought = [table[:20], table[20:30], pl.concat([table[30:], table[5:7]])]
    first = validate(lake, grown(lake, brought[:1]))
    assert ids(lake, first) == table["triplet_id"][:20].to_list()
    for number in (2, 3):
        bring(lake, number, brought[number - 1])
    made = validate(lake, manifest(brought))
    assert made.flows["triplets"].drops == {"triplet_id_repeated": 4}
    assert ids(lake, made, "quarantine") == ["f-000000005"] * 2 + ["f-000000006"] * 2
    assert made.flows["triplets"].rows_out == len(ids(lake, made)) == 38
    assert kernel == [20, 20, 10, 12]  # the first anew; what has no such id is made once
    assert ids(lake, first) == table["triplet_id"][:20].to_list()


def test_a_mask_that_great_expectations_denies_is_not_found_again(lake: Store, monkeypatch: pytest.MonkeyPatch):
    collected = grown(lake, days(1))
    with monkeypatch.context() as patched:
        patched.setattr(
            "ratchet.validation.validate_part.judge_rows", lambda rows, rules: rows.with_columns(mask=pl.lit(0))
        )
        with pytest.raises(Disagreement):
            validate(lake, collected)
    assert validate(lake, collected).flows["triplets"].drops


def test_the_sample_does_not_depend_on_collections(lake: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(
        "ratchet.validation.great_expectations.check_parity", lambda rows, *_: seen.append(sorted(rows["triplet_id"]))
    )
    whole = open_store(tmp_path / "whole")
    validate(lake, grown(lake, days()))
    validate(whole, grown(whole, [pl.concat(days())]))
    assert seen[0] == seen[1]
    assert len(seen[0]) >= 50
