"""The templates' own commands, run in the order of their DAG."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.manifest import Artifact, Manifest
from ratchet.release.ledger import read_ledger
from ratchet.step import read_manifest
from ratchet.store import open_store
from ratchet_pipelines.argo.compile import compile_documents
from ratchet_pipelines.argo.settings import Settings
from support import argo_commands, vote_factory
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


@pytest.mark.parametrize(
    ("verdict", "parameters", "answers", "ran"),
    [
        ("pass", {"approval": "none"}, {}, {"release-adapter"}),
        ("pass", {}, {"answer": "approve", "who": "ada", "why": "fine"}, {"ask-person", "approve", "release-adapter"}),
        ("pass", {}, {"answer": "reject"}, {"ask-person"}),
        ("pass", {}, {}, {"ask-person"}),  # nobody answered
        ("fail", {}, {"answer": "approve"}, set()),
        ("fail", {"force": "true"}, {"answer": "approve"}, {"ask-person", "approve", "release-adapter"}),
        ("insufficient", {"approval": "none"}, {}, set()),
    ],
)
def test_a_release_follows_a_pass_and_a_persons_yes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verdict: str,
    parameters: dict[str, str],
    answers: dict[str, str],
    ran: set[str],
) -> None:
    """The conditions of the DAG as Argo reads them; containers are not run."""
    tasks, run = [], argo_commands._Cluster.run

    def play(cluster: argo_commands._Cluster, task: dict[str, Any], scope: dict[str, str]) -> dict[str, str]:
        tasks.append(task["name"])
        return run(cluster, task, scope) if task["name"] == "ask-person" else {"uri": "m", "decision": verdict}

    monkeypatch.setattr(argo_commands._Cluster, "run", play)
    run_workflow(TEMPLATES, parameters, tmp_path, answers=answers)
    assert set(tasks) & {"ask-person", "approve", "release-adapter"} == ran


@pytest.mark.parametrize("approved_by", ["", "ada"])
def test_a_release_that_is_started_alone_takes_the_yes_as_arguments(
    tmp_path: Path, settings: Path, approved_by: str
) -> None:
    store = open_store(tmp_path / "lake")
    adapter = {"name": "adapter", "version": "2", "adapter_uri": "adapters/b", "adapter_digest": "b" * 64}
    store.create("registry/n/version.json", json.dumps({**adapter, "verdict": "pass"}).encode())
    version = Artifact(uri="registry/n/version.json", digest="d")
    made = {name: {"version": version} for name in ("train_adapter", "evaluate_adapter", "register_adapter")}
    parameters = {"approved-by": approved_by, "why": 'it\'s "fine"'}
    for name, outputs in made.items():
        fields = {"step": name, "key": "k", "inputs": {}, "code_version": "0", "created_at": 0.0, "seconds": 0.0}
        uri = f"manifests/{name}/k.json"
        store.create(uri, Manifest(outputs=outputs, **fields).model_dump_json().encode())
        parameters[name.replace("_", "-")] = uri
    documents = [*TEMPLATES, config_map(tmp_path / "lake", settings)]
    uris = run_workflow(documents, parameters, tmp_path / "pods", "ratchet-release-adapter")
    assert read_manifest(store, uris["release_adapter"]).facts["outcome"] == "no_target"
    assert [(record.event, record.who, record.why) for record in read_ledger(store)] == (
        [("approved", "ada", 'it\'s "fine"')] if approved_by else []
    )
