"""The templates' own commands, run in the order of their DAG."""

from pathlib import Path

import pytest
import yaml

from ratchet.step import read_manifest
from ratchet.store import open_store
from ratchet_pipelines.argo.compile import compile_documents
from ratchet_pipelines.argo.settings import Settings
from support import vote_factory
from support.argo_commands import TaskFailed, config_map, run_workflow

pytestmark = [pytest.mark.timeout(600)]
TEMPLATES = compile_documents(Settings(image="ratchet-components:0.1.0"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    path = tmp_path_factory.mktemp("settings") / "ratchet.yaml"
    sections = {
        "base_model": {"model": str(tiny_model), "dtype": "float32"},
        "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2},
        "evaluate_adapter": {"min_pairs": 4, "max_new_tokens": 4, "resamples": 200},
    }
    path.write_text(yaml.safe_dump(sections))
    return path


def make_lake(folder: Path) -> Path:
    vote_factory.land_votes(open_store(folder))
    return folder


@pytest.mark.slow
def test_parts_started_one_after_the_other_hand_on_manifests(tmp_path: Path, settings: Path) -> None:
    lake = make_lake(tmp_path / "lake")
    uris = run_workflow([*TEMPLATES, config_map(lake, settings)], {}, tmp_path / "pods", "ratchet-collect-feedback")
    assert list(uris) == ["collect_triplets", "validate_triplets", "build_datasets"]
    assert read_manifest(open_store(lake), uris["build_datasets"]).step == "build_datasets"


def test_a_failed_step_shows_its_own_message_and_the_code_that_is_not_retried(tmp_path: Path, settings: Path) -> None:
    with pytest.raises(TaskFailed, match="nowhere") as failed:
        run_workflow([*TEMPLATES, config_map(tmp_path / "nowhere", settings)], {}, tmp_path / "pods")
    assert failed.value.task == "collect-triplets"
    assert failed.value.code == 2
