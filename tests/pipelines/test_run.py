"""The whole loop on a tiny real model, through the command line as a user runs it."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.config import load_config
from ratchet.step import read_manifest
from ratchet.store import open_store
from ratchet_pipelines.graph import BY_NAME
from ratchet_pipelines.loop import run_loop, summarize
from ratchet_pipelines.profiles import profile_path
from support import vote_factory

pytestmark = [pytest.mark.timeout(600)]
STEPS = [
    "collect_triplets", "validate_triplets", "build_datasets", "train_adapter", "evaluate_adapter",
    "register_adapter", "release_adapter",
]  # fmt: skip


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    path = tmp_path_factory.mktemp("settings") / "ratchet.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "base_model": {"model": str(tiny_model), "dtype": "float32"},
                "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2},
                "evaluate_adapter": {"min_pairs": 4, "max_new_tokens": 4, "resamples": 200},
            }
        )
    )
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, settings: Path) -> tuple[Path, dict[str, Any]]:
    """A lake that `ratchet run` has been through, and what it printed with --json."""
    lake = make_lake(tmp_path_factory.mktemp("finished") / "lake")
    return lake, json.loads(ratchet("run", "--lake", lake, "--config", settings, "--json").stdout)


def ratchet(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ratchet_pipelines.cli", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done


def run(lake: Path, settings: Path) -> dict[str, Any]:
    """The loop in this process, which has paid for its imports."""
    return summarize(run_loop(load_config(settings), open_store(lake), lambda step, ran: None))


def digests(summary: dict[str, Any]) -> dict[str, str]:
    return {name: step["digest"] for name, step in summary["steps"].items()}


def make_lake(folder: Path) -> Path:
    vote_factory.land_votes(open_store(folder))
    return folder


def test_a_run_ends_registered_with_a_verdict_and_every_row_accounted_for(finished: tuple[Path, Any]) -> None:
    _, summary = finished
    assert list(summary["steps"]) == STEPS
    assert summary["verdict"]["verdict"] in {"pass", "fail", "insufficient"}
    assert str(summary["version"]["version"]) == "1"
    assert summary["release"]["outcome"] in {"refused", "no_target"}
    flows = [flow for step in summary["steps"].values() for flow in step["flows"].values()]
    assert all(flow["rows_in"] == flow["rows_out"] + sum(flow["drops"].values()) for flow in flows)


def test_the_same_run_again_does_nothing_and_says_so(finished: tuple[Path, Any], settings: Path) -> None:
    lake, summary = finished
    again = ratchet("run", "--lake", lake, "--config", settings, "--json")
    assert "Nothing to do" in again.stderr
    steps = json.loads(again.stdout)["steps"]
    assert not any(step["did_work"] for step in steps.values())
    assert digests({"steps": steps}) == digests(summary)


def test_two_clean_folders_give_the_same_digests(finished: tuple[Path, Any], settings: Path, tmp_path: Path) -> None:
    assert digests(run(make_lake(tmp_path / "another"), settings)) == digests(finished[1])


@pytest.mark.slow
def test_steps_run_one_by_one_make_what_the_whole_run_makes(
    finished: tuple[Path, Any], settings: Path, tmp_path: Path
) -> None:
    lake = make_lake(tmp_path / "stepwise")
    uris: dict[str, str] = {}
    for step in STEPS[:3]:
        given = [part for name in BY_NAME[step].inputs for part in ("--in", f"{name}={uris[name]}")]
        uris[step] = ratchet(step, "--lake", lake, "--config", settings, *given).stdout.strip()
        assert read_manifest(open_store(lake), uris[step]).digest == digests(finished[1])[step]


@pytest.mark.slow
def test_new_votes_join_the_old_ones_in_the_next_dataset(settings: Path, tmp_path: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    config, steps = load_config(settings), [BY_NAME[name] for name in STEPS[:3]]
    first = summarize(run_loop(config, open_store(lake), lambda step, ran: None, steps))
    vote_factory.land_votes(open_store(lake), seed=1, first=1000)
    second = summarize(run_loop(config, open_store(lake), lambda step, ran: None, steps))
    was, now = (run["steps"]["validate_triplets"]["flows"]["triplets"]["rows_in"] for run in (first, second))
    assert now > 1.5 * was
    assert second["dataset"]["digest"] != first["dataset"]["digest"]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("step", STEPS)
def test_killed_in_any_step_and_run_again_gives_the_same(tmp_path: Path, settings: Path, step: str) -> None:
    whole = run(make_lake(tmp_path / "whole"), settings)
    lake = make_lake(tmp_path / "killed")
    rng = random.Random(step)
    for _ in range(3):
        kill_during(step, lake, settings, rng)
    healed = run(lake, settings)
    assert digests(healed) == digests(whole)
    assert str(healed["version"]["version"]) == "1"


def kill_during(step: str, lake: Path, settings: Path, rng: random.Random) -> None:
    """SIGKILL `ratchet run` a random moment after the step before `step` has published its manifest."""
    before = STEPS[STEPS.index(step) - 1] if step != STEPS[0] else None
    process = subprocess.Popen(
        [sys.executable, "-m", "ratchet_pipelines.cli", "run", "--lake", lake, "--config", settings],
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while process.poll() is None and before and not list((lake / "manifests" / before).glob("*.json")):
        time.sleep(0.01)
    time.sleep(rng.random() * 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Each kill must hit the step at work, not a finished one.
    shutil.rmtree(lake / "manifests" / step, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS[:-1])  # a release without a target writes too little to fail
def test_a_full_disk_is_said_and_loses_nothing(
    finished: tuple[Path, Any], settings: Path, tmp_path: Path, step: str
) -> None:
    lake, config = make_lake(tmp_path / "lake"), load_config(settings)
    run_loop(config, open_store(lake), lambda step, ran: None, [BY_NAME[name] for name in STEPS[: STEPS.index(step)]])
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_pipelines.cli", "run", "--lake", lake, "--config", settings],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200)),
    )
    assert (done.returncode, "Traceback" in done.stderr) == (2, False), done.stderr
    assert "the disk is full" in " ".join(done.stderr.split())
    assert not list((lake / "manifests" / step).glob("*.json"))
    assert digests(run(lake, settings)) == digests(finished[1])


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "--lake", "nowhere"], "ratchet import"),
        (["releases", "--lake", "nowhere"], "is --lake right?"),
        (["run", "--until", "trian"], "no such step"),
        (["run", "--config", "missing.yaml"], "cannot be read"),
        (["import", "pandas", "x.json"], "no such format"),
        (["profile", "gpus"], "no such profile"),
        (["validate_triplets", "--share", "3/2"], "--share 3/2: write I/N"),
        (["validate_triplets", "--share", "0/2"], "--share 0/2: write I/N"),
        (["validate_triplets", "--share", "half"], "--share half: write I/N"),
        (["build_datasets", "--share", "1/2"], "build_datasets has no parts to share"),
    ],
)
def test_a_users_mistake_is_one_message_and_exit_code_2(tmp_path: Path, args: list[str], words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_pipelines.cli", *args], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_every_profile_is_a_valid_configuration() -> None:
    for name in ("local", "demo", "gpu"):
        load_config(profile_path(name))


def test_a_step_leaves_what_an_orchestrator_reads(finished: tuple[Path, Any], settings: Path, tmp_path: Path) -> None:
    lake, summary = finished
    out = tmp_path / "out"
    ratchet("collect_triplets", "--lake", lake, "--config", settings, "--out", out)
    uri = summary["steps"]["collect_triplets"]["manifest"]
    assert (out / "uri").read_text() == uri
    assert (out / "decision").read_text() == "done"
    told = json.loads((out / "return.json").read_text())
    assert (told["uri"], told["did_work"]) == (uri, False)
    assert json.loads((out / "manifest.json").read_text()) == json.loads((lake / uri).read_text())


def test_the_ledger_can_be_read_and_an_abort_with_nothing_under_way_is_refused(finished: tuple[Path, Any]) -> None:
    lake, _ = finished
    records = json.loads(ratchet("releases", "--lake", lake, "--json").stdout)
    assert [record["event"] for record in records] in ([], ["refused"])
    command = [sys.executable, "-m", "ratchet_pipelines.cli", "abort", "bad answers", "--lake", str(lake)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no release is under way" in " ".join(done.stderr.split())
