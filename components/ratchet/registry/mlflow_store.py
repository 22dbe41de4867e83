"""Connect to MLflow (the configured server, or a SQLite file in the lake) and record datasets there."""

import fcntl
import json
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.manifest import Artifact
from ratchet.store import LocalStore, Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"
DATASET_DIGEST_CHARS = 36  # MLflow truncates a dataset's digest to this


def connect(config: Config, store: Store) -> "MlflowClient":
    """Return a client for the lake's MLflow; create the configured experiment if it does not exist.

    Also sets MLflow's process-wide tracking URI, because parts of MLflow read nothing else. Raises UserError for a
    lake on S3 without `registry.tracking_uri`: SQLite needs a disk.
    """
    quieten()
    import mlflow

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it also logs the errors that it raises
    uri = config.registry.tracking_uri or _database_uri(store)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    _make_experiment(client, config.registry.experiment, None if uri.startswith("http") else _artifacts_uri(store))
    return client


def experiment_id(client: "MlflowClient", config: Config) -> str:
    """Return the id of the configured experiment. Raises UserError if it was deleted."""
    experiment = client.get_experiment_by_name(config.registry.experiment)
    if experiment is None or experiment.lifecycle_stage != "active":
        raise UserError(
            f"registry.experiment = {config.registry.experiment!r} was deleted; restore it with "
            "`mlflow experiments restore` or name another"
        )
    return str(experiment.experiment_id)


def log_dataset(client: "MlflowClient", run_id: str, dataset: Artifact, store: Store) -> None:
    """Log the dataset as the run's training input, with its location and, if it has one, its card."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    card = f"{dataset.uri}/card.md"
    entity = Dataset(
        name="ratchet",
        digest=dataset.digest[:DATASET_DIGEST_CHARS],
        source_type="s3" if store.root.startswith("s3://") else "local",
        source=json.dumps({"uri": f"{store.root}/{dataset.uri}", "digest": dataset.digest}),
        profile=json.dumps({"rows": dataset.rows}),
    )
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])
    if store.exists(card):
        client.log_text(run_id, store.read(card).decode(), "dataset/card.md")


def quieten() -> None:
    """Turn off MLflow's telemetry and chatter. Call before MLflow is imported: it reads these variables once."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")


def _database_uri(store: Store) -> str:
    if not isinstance(store, LocalStore):
        raise UserError(f"the lake {store.root} has no disk for MLflow's SQLite file; set registry.tracking_uri")
    database = store.path / DATABASE
    store.path.mkdir(parents=True, exist_ok=True)
    with (store.path / f".{DATABASE}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not database.exists():
            _create_database(database, _artifacts_uri(store))
    return f"sqlite:///{database}"


def _create_database(database: Path, artifacts_uri: str) -> None:
    """Create the database aside, then rename it.

    MLflow migrates an empty file in many transactions; one that was killed between two never opens again.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix=".", dir=database.parent) as folder:
        aside = Path(folder) / DATABASE
        tracking = SqlAlchemyStore(f"sqlite:///{aside}", artifacts_uri)
        tracking.engine.dispose()
        aside.rename(database)


def _artifacts_uri(store: Store) -> str:
    return (store.path / ARTIFACTS).as_uri() if isinstance(store, LocalStore) else f"{store.root}/{ARTIFACTS}"


def _make_experiment(client: "MlflowClient", name: str, artifacts_uri: str | None) -> None:
    """Create the experiment unless it exists.

    A server has its own artifact location (None); a bare database would put artifacts in the working folder.
    """
    from mlflow.exceptions import MlflowException

    if client.get_experiment_by_name(name) is None:
        try:
            client.create_experiment(name, artifact_location=artifacts_uri)
        except MlflowException as error:  # another process was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
