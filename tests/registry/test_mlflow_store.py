"""MLflow in the lake: made once, whole, by whoever comes first; silent."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ratchet.config import Config, Registry
from ratchet.errors import UserError
from ratchet.manifest import Artifact
from ratchet.registry.mlflow_store import connect, experiment_id, log_dataset
from ratchet.store import LocalStore, S3Store

CONNECT = """
import sys
from ratchet.config import Config
from ratchet.registry.mlflow_store import connect, experiment_id
from ratchet.store import open_store
print(experiment_id(connect(Config(), open_store(sys.argv[1])), Config()))
"""


def start(lake: Path) -> subprocess.Popen[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    return subprocess.Popen(
        [sys.executable, "-c", CONNECT, str(lake)], text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain
    )


@pytest.mark.slow
def test_two_processes_make_one_experiment_and_say_nothing(tmp_path: Path) -> None:
    processes = [start(tmp_path), start(tmp_path)]
    said = [process.communicate(timeout=100) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert said[0] == said[1]
    assert said[0][1] == ""
    with sqlite3.connect(tmp_path / "mlflow.db") as database:
        assert database.execute("select count(*) from experiments where name = 'ratchet'").fetchone() == (1,)


@pytest.mark.slow
def test_killed_while_the_schema_is_made_leaves_no_database(tmp_path: Path) -> None:
    process = start(tmp_path)
    while not list(tmp_path.glob(".*/mlflow.db")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "mlflow.db").exists()
    assert experiment_id(connect(Config(), LocalStore(tmp_path)), Config())


def test_artifacts_go_to_the_lake(registry_lake: LocalStore) -> None:
    client = connect(Config(), registry_lake)
    experiment = client.get_experiment(experiment_id(client, Config()))
    assert experiment.artifact_location == (registry_lake.path / "mlartifacts").as_uri()


def test_deleted_experiment_is_named_with_what_to_do(registry_lake: LocalStore) -> None:
    client = connect(Config(), registry_lake)
    client.delete_experiment(experiment_id(client, Config()))
    with pytest.raises(UserError, match=r"'ratchet' was deleted.*restore"):
        experiment_id(client, Config())


def test_lake_on_s3_needs_a_tracking_uri(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with pytest.raises(UserError, match=r"s3://bucket/lake has no disk.*registry.tracking_uri"):
        connect(Config(), S3Store("s3://bucket/lake"))


def test_lake_on_s3_with_a_database_elsewhere_keeps_artifacts_in_the_lake(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    config = Config(registry=Registry(tracking_uri=f"sqlite:///{database}", experiment="on-s3"))
    client = connect(config, S3Store("s3://bucket/lake"))
    assert client.get_experiment_by_name("on-s3").artifact_location == "s3://bucket/lake/mlartifacts"


def test_run_has_the_dataset_and_its_card(lake):
    client = connect(Config(), lake)
    run_id = client.create_run(experiment_id(client, Config())).info.run_id
    lake.create("datasets/d/card.md", b"# Dataset card\n")
    log_dataset(client, run_id, Artifact(uri="datasets/d", digest="d" * 64, rows=7), lake)
    (found,) = client.get_run(run_id).inputs.dataset_inputs
    assert found.dataset.digest == "d" * 36
    assert json.loads(found.dataset.source) == {"uri": f"{lake.root}/datasets/d", "digest": "d" * 64}
    assert [file.path for file in client.list_artifacts(run_id, "dataset")] == ["dataset/card.md"]
