"""The very pipelines that are compiled, run by kfp.local on a tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
from kfp import local

from ratchet.lineage import all_manifests
from ratchet.store import Store, open_store
from ratchet_pipelines.kubeflow.pipelines import Pipeline
from support import vote_factory

pytestmark = [pytest.mark.timeout(600)]


@pytest.fixture(autouse=True)
def runner(tmp_path: Path) -> Path:
    """Tasks are processes of this environment, and what they make for the UI lies below this folder."""
    root = tmp_path / "outputs"
    local.init(local.SubprocessRunner(use_venv=False), str(root), str(tmp_path / "workspace"))
    return root


def lake_with_votes(folder: Path) -> Store:
    store = open_store(folder)
    vote_factory.land_votes(store)
    return store


def artifacts(root: Path) -> dict[str, dict[str, Any]]:
    """What the tasks told kfp of their artifacts, by task and name."""
    told = {file.parent.name: json.loads(file.read_text()) for file in root.rglob("executor_output.json")}
    return {
        task: {name: found["artifacts"][0] for name, found in output.get("artifacts", {}).items()}
        for task, output in told.items()
    }


@pytest.mark.slow
def test_artifacts_are_what_the_steps_made(
    local_pipelines: dict[str, Pipeline], settings: str, runner: Path, tmp_path: Path
) -> None:
    store = lake_with_votes(tmp_path / "lake")
    local_pipelines["ratchet"](lake=store.root, config=settings, release=True)
    made = {manifest.step: manifest.outputs for manifest in all_manifests(store)}
    shown = artifacts(runner)
    assert shown["train-adapter"]["adapter"]["metadata"]["digest"] == made["train_adapter"]["adapter"].digest
    assert shown["build-datasets"]["dataset"]["metadata"]["digest"] == made["build_datasets"]["dataset"].digest
    assert all(Path(artifact["uri"]).read_text() for task in shown.values() for artifact in task.values())


@pytest.mark.slow
def test_parts_started_one_by_one_make_the_same_and_a_rerun_does_nothing(
    local_pipelines: dict[str, Pipeline], settings: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    store = lake_with_votes(tmp_path / "lake")
    both = {"lake": store.root, "config": settings}
    dataset = local_pipelines["ratchet-data"](**both).outputs["Output"]
    local_pipelines["ratchet-train-and-evaluate"](**both, build_datasets=dataset)
    before = {manifest.key: manifest.created_at for manifest in all_manifests(store)}
    capfd.readouterr()
    local_pipelines["ratchet"](**both, release=False)
    assert {manifest.key: manifest.created_at for manifest in all_manifests(store)} == before
    said = capfd.readouterr().out
    assert said.count("done before, nothing to do") == len(before) == 6


@pytest.mark.slow
def test_cache_skips_equal_digests_and_never_the_look_for_new_votes(
    local_pipelines: dict[str, Pipeline], settings: str, runner: Path, tmp_path: Path
) -> None:
    local.init(local.SubprocessRunner(use_venv=False), str(runner), str(tmp_path / "workspace"), enable_caching=True)
    store = lake_with_votes(tmp_path / "lake")
    ran = []
    for seed in (0, 0, 1):
        vote_factory.land_votes(store, seed=seed, first=1000 * seed)
        local_pipelines["ratchet-data"](lake=store.root, config=settings)
        ran.append({task.name for task in max(runner.glob("ratchet-data-*")).iterdir()})
    every = {"collect-triplets", "validate-triplets", "build-datasets"}
    assert ran == [every, {"collect-triplets"}, every]


def test_a_failed_step_ends_its_log_with_its_own_message(
    local_pipelines: dict[str, Pipeline], settings: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError, match="collect-triplets"):
        local_pipelines["ratchet"](lake=str(tmp_path / "empty"), config=settings)
    step, notice = capfd.readouterr().out.split("Looking for component `notify`")
    assert step.count("error:") == 1
    last = " ".join(step.split("error:")[1].split())
    assert last.startswith(f"{tmp_path}/empty/events holds no events; serve some, or `ratchet import pandalm")
    assert "Traceback" not in step
    assert "failed" in notice
