"""Connect to MLflow: the configured server, or a SQLite file in the lake that is made whole or not at all."""

import fcntl
import logging
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.store import LocalStore, Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

DATABASE = "mlflow.db"
ARTIFACTS = "mlartifacts"


def connect(config: Config, store: Store) -> "MlflowClient":
    """A client for the lake's MLflow, its experiment made.

    Also sets MLflow's process-wide tracking URI, because parts of MLflow read nothing else. Raises UserError for a
    lake on S3 without `registry.tracking_uri`: SQLite needs a disk.
    """
    quieten()
    import mlflow

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # it logs what it raises
    uri = config.registry.tracking_uri or _database_uri(store)
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
    _make_experiment(client, config.registry.experiment, None if uri.startswith("http") else _artifacts_uri(store))
    return client


def experiment_id(client: "MlflowClient", config: Config) -> str:
    """The id of the configured experiment, which `connect` has made."""
    found = client.get_experiment_by_name(config.registry.experiment)
    if found is None or found.lifecycle_stage != "active":
        raise UserError(
            f"registry.experiment = {config.registry.experiment!r} was deleted; restore it with "
            "`mlflow experiments restore` or name another"
        )
    return str(found.experiment_id)


def quieten() -> None:
    """Before MLflow is imported: it reads these once."""
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
    """MLflow migrates an empty file in many transactions; killed between two, it would never open again."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with tempfile.TemporaryDirectory(prefix=".", dir=database.parent) as folder:
        aside = Path(folder) / DATABASE
        made = SqlAlchemyStore(f"sqlite:///{aside}", artifacts_uri)
        made.engine.dispose()
        aside.rename(database)


def _artifacts_uri(store: Store) -> str:
    return (store.path / ARTIFACTS).as_uri() if isinstance(store, LocalStore) else f"{store.root}/{ARTIFACTS}"


def _make_experiment(client: "MlflowClient", name: str, artifacts_uri: str | None) -> None:
    """A server keeps artifacts where it was told to (None); a bare database would put them in the working folder."""
    from mlflow.exceptions import MlflowException

    if client.get_experiment_by_name(name) is None:
        try:
            client.create_experiment(name, artifact_location=artifacts_uri)
        except MlflowException as error:  # another process was first
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
