"""One migrated MLflow database for all registry tests: making it takes seconds, copying it none."""

import shutil
from pathlib import Path

import pytest

from ratchet.config import Config, Registry
from ratchet.registry import mlflow_store
from ratchet.store import LocalStore, open_store


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    mlflow_store.connect(Config(registry=Registry(experiment="elsewhere")), open_store(folder))
    return folder / mlflow_store.DATABASE


@pytest.fixture
def registry_lake(tmp_path: Path, database: Path) -> LocalStore:
    """A lake whose MLflow is there already, and empty."""
    store = LocalStore(tmp_path / "registry-lake")
    store.path.mkdir()
    shutil.copy(database, store.path / mlflow_store.DATABASE)
    return store
