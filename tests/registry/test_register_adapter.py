"""One version for each adapter digest, whatever is killed; challenger only for what asks to serve."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from ratchet.config import Config, ReleaseAdapter
from ratchet.errors import UserError
from ratchet.registry.aliases import aliases, promote
from ratchet.registry.mlflow_store import connect, experiment_id
from ratchet.registry.register_adapter import STEP
from ratchet.step import key_of
from ratchet.store import LocalStore
from support import registry_crash
from support.registry_crash import CARD, inputs


def files_of(client: MlflowClient, version: ModelVersion) -> set[str]:
    """Names of the files under the version's LoggedModel, none of them empty."""
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    folder = Path(logged.artifact_location.removeprefix("file://"))
    return {path.name for path in folder.iterdir() if path.stat().st_size}


def forced(is_forced: bool = True) -> Config:
    return Config(release_adapter=ReleaseAdapter(force=is_forced))


def versions(store: LocalStore) -> list[ModelVersion]:
    return connect(Config(), store).search_model_versions("name = 'adapter'")


def test_version_carries_files_lineage_and_verdict(registry_lake: LocalStore) -> None:
    given = inputs(registry_lake)
    made = STEP.run(Config(), given, registry_lake)
    adapter = given["train_adapter"].outputs["adapter"]
    (version,) = versions(registry_lake)
    assert version.tags["adapter_digest"] == adapter.digest
    assert version.tags["adapter_uri"] == adapter.uri
    assert version.tags["dataset_digest"] == "d" * 64
    assert version.tags["verdict"] == "pass"
    assert {name: version.tags[name] for name in CARD} == CARD
    assert "Offline verdict against base: pass (for a reason)" in version.description
    client = connect(Config(), registry_lake)
    assert files_of(client, version) == {"adapter_model.safetensors", "adapter_config.json", "adapter.json"}
    run = client.get_run(version.run_id)
    assert run.inputs.dataset_inputs[0].dataset.digest == "d" * 36
    assert run.data.metrics["format/difference"] == -0.1
    written = json.loads(registry_lake.read(made.outputs["version"].uri))
    assert (written["name"], written["version"], written["verdict"]) == ("adapter", "1", "pass")
    assert aliases(client, "adapter") == {"challenger": "1"}


def test_run_again_is_the_same_version_and_digest(registry_lake: LocalStore) -> None:
    first, second = (STEP.run(Config(), inputs(registry_lake), registry_lake) for _ in range(2))
    assert first.outputs == second.outputs
    assert len(versions(registry_lake)) == 1


def test_another_adapter_is_another_version(registry_lake: LocalStore) -> None:
    STEP.run(Config(), inputs(registry_lake), registry_lake)
    made = STEP.run(Config(), inputs(registry_lake, weight=2.0), registry_lake)
    assert made.facts["version"] == "2"
    assert aliases(connect(Config(), registry_lake), "adapter") == {"challenger": "2"}


def test_an_adapter_that_no_pool_may_load_is_not_registered(registry_lake: LocalStore) -> None:
    with pytest.raises(UserError, match="NaN"):
        STEP.run(forced(), inputs(registry_lake, weight=float("nan")), registry_lake)
    assert not versions(registry_lake)


@pytest.mark.parametrize("verdict", ["fail", "insufficient"])
def test_without_a_pass_nothing_asks_to_serve(registry_lake: LocalStore, verdict: str) -> None:
    made = STEP.run(Config(), inputs(registry_lake, verdict), registry_lake)
    assert not made.facts["is_challenger"]
    assert aliases(connect(Config(), registry_lake), "adapter") == {}


def test_force_asks_to_serve_and_leaves_its_mark(registry_lake: LocalStore) -> None:
    made = STEP.run(forced(), inputs(registry_lake, "insufficient"), registry_lake)
    assert made.facts["is_challenger"]
    assert versions(registry_lake)[0].tags["gate.forced"] == "true"


def test_force_leaves_no_mark_on_a_pass(registry_lake: LocalStore) -> None:
    STEP.run(forced(), inputs(registry_lake), registry_lake)
    assert "gate.forced" not in versions(registry_lake)[0].tags


def test_of_the_release_settings_only_force_changes_the_key(registry_lake: LocalStore) -> None:
    given = inputs(registry_lake)
    key = key_of(STEP, Config(), given, registry_lake)
    assert key_of(STEP, Config(release_adapter=ReleaseAdapter(poll_s=9)), given, registry_lake) == key
    assert key_of(STEP, forced(), given, registry_lake) != key


def test_evaluated_again_the_version_carries_the_newest_verdict(registry_lake: LocalStore) -> None:
    STEP.run(Config(), inputs(registry_lake, "pass"), registry_lake)
    STEP.run(Config(), inputs(registry_lake, "fail"), registry_lake)
    (version,) = versions(registry_lake)
    assert version.tags["verdict"] == "fail"
    assert "base: fail" in version.description
    assert aliases(connect(Config(), registry_lake), "adapter") == {}


def test_champion_does_not_ask_again(registry_lake: LocalStore) -> None:
    STEP.run(Config(), inputs(registry_lake), registry_lake)
    client = connect(Config(), registry_lake)
    promote(client, client, "adapter", "1", {})
    client.delete_registered_model_alias("adapter", "challenger")
    STEP.run(Config(), inputs(registry_lake), registry_lake)
    assert aliases(client, "adapter") == {"champion": "1"}


@pytest.fixture(scope="module")
def killed(database: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lakes in which the step was killed, each named after the call to MLflow that was its last."""
    root = tmp_path_factory.mktemp("killed")
    for stop in registry_crash.STOPS:
        lake = LocalStore(root / stop)
        lake.create("mlflow.db", database.read_bytes())
        inputs(lake)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, registry_crash.__file__, str(root)], check=True, env=environment)
    return root


@pytest.mark.parametrize("stop", registry_crash.STOPS)
def test_killed_anywhere_the_next_run_ends_with_one_version(killed: Path, stop: str) -> None:
    store = LocalStore(killed / stop)
    assert not list(store.list("registry"))
    made = STEP.run(Config(), inputs(store), store)
    assert made.facts["is_challenger"]
    (version,) = versions(store)
    client = connect(Config(), store)
    experiment = experiment_id(client, Config())
    (logged,) = client.search_logged_models([experiment])
    assert logged.status == "READY"
    assert version.source == f"models:/{logged.model_id}"
    assert files_of(client, version) == {"adapter_model.safetensors", "adapter_config.json", "adapter.json"}
    assert len(client.search_runs([experiment])) == 1


def test_registrations_at_once_end_with_one_version(registry_lake: LocalStore) -> None:
    """Some may be refused by MLflow, whose own writes race; none may leave a second version behind."""
    given = inputs(registry_lake)
    connect(Config(), registry_lake)

    def register(_: int) -> None:
        with suppress(MlflowException):
            STEP.run(Config(), given, registry_lake)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(register, range(4)))
    made = STEP.run(Config(), given, registry_lake)
    (version,) = versions(registry_lake)
    assert made.facts["version"] == str(version.version)
