"""The whole loop on a tiny real model, through the command line as a user runs it."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import votes
import yaml
from ratchet.store import open_store

STEPS = [
    "collect_triplets", "validate_triplets", "build_datasets", "train_adapter", "evaluate_adapter",
    "register_adapter", "release_adapter",
]  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path, tiny_model: Path) -> Path:
    path = tmp_path / "ratchet.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "base_model": {"model": str(tiny_model), "dtype": "float32"},
                "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2, "sft": {"batch_rows": 8, "micro_rows": 8}},
                "evaluate_adapter": {"min_pairs": 4, "max_new_tokens": 4, "resamples": 200},
            }
        )
    )
    return path


def ratchet(*args: str | Path, expect: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "ratchet_pipelines.cli", *map(str, args)], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == expect, done.stderr
    return done


def digests(summary: dict[str, Any]) -> dict[str, str]:
    return {name: step["digest"] for name, step in summary["steps"].items()}


def run(lake: Path, settings: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(ratchet("run", "--lake", lake, "--config", settings, "--json").stdout)
    return summary


def make_lake(folder: Path) -> Path:
    votes.land_votes(open_store(folder))
    return folder


def test_run_ends_registered_with_a_verdict_and_rerun_does_nothing(tmp_path: Path, settings: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    first = run(lake, settings)
    assert list(first["steps"]) == STEPS
    assert first["verdict"]["verdict"] in {"pass", "fail", "insufficient"}
    assert first["version"]["version"] == "1"
    assert all(
        flow["rows_in"] == flow["rows_out"] + sum(flow["drops"].values())
        for step in first["steps"].values()
        for flow in step["flows"].values()
    )
    again = ratchet("run", "--lake", lake, "--config", settings, "--json")
    assert "Nothing to do" in again.stderr
    assert not any(step["did_work"] for step in json.loads(again.stdout)["steps"].values())
    assert digests(json.loads(again.stdout)) == digests(first)


def test_two_clean_folders_give_the_same_digests(tmp_path: Path, settings: Path) -> None:
    one, two = (run(make_lake(tmp_path / name), settings) for name in ("one", "two"))
    assert digests(one) == digests(two)
    assert one["adapter"]["digest"] == two["adapter"]["digest"]


def test_new_votes_make_a_new_dataset_from_old_and_new(tmp_path: Path, settings: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    ratchet("run", "--lake", lake, "--config", settings, "--until", "build_datasets")
    votes.land_votes(open_store(lake), seed=1, first=1000)
    grown = run(lake, settings)
    assert grown["steps"]["validate_triplets"]["flows"]["triplets"]["rows_in"] > 150


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
    assert healed["version"]["version"] == "1"


def kill_during(step: str, lake: Path, settings: Path, rng: random.Random) -> None:
    """SIGKILL `ratchet run` a random moment after the step before `step` has published its manifest."""
    before = STEPS[STEPS.index(step) - 1] if step != STEPS[0] else None
    process = subprocess.Popen(
        [sys.executable, "-m", "ratchet_pipelines.cli", "run", "--lake", lake, "--config", settings],
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    while process.poll() is None and before and not list((lake / "manifests" / before).glob("*.json")):
        time.sleep(0.01)
    time.sleep(rng.random() * 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # Each kill must hit the step at work, not a finished one.
    shutil.rmtree(lake / "manifests" / step, ignore_errors=True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["run", "--lake", "nowhere"], "ratchet import"),
        (["run", "--until", "trian"], "no such step"),
        (["run", "--config", "missing.yaml"], "cannot be read"),
        (["import", "pandas", "x.json"], "no such format"),
        (["profile", "gpus"], "no such profile"),
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
    from ratchet.config import load_config
    from ratchet_pipelines.cli import profile_path

    for name in ("local", "demo", "gpu"):
        load_config(profile_path(name))
