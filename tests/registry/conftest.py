"""One migrated MLflow database for all registry tests: making it takes seconds, copying it none."""

import shutil
from pathlib import Path

import pytest

from ratchet.config import Config, Registry
from ratchet.registry import tracking
from ratchet.store import LocalStore, open_store


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mlflow")
    tracking.connect(Config(registry=Registry(experiment="elsewhere")), open_store(folder))
    return folder / tracking.DATABASE


@pytest.fixture
def registry_lake(tmp_path: Path, database: Path) -> LocalStore:
    """A lake whose MLflow is there already, and empty."""
    store = LocalStore(tmp_path / "registry-lake")
    store.path.mkdir()
    shutil.copy(database, store.path / tracking.DATABASE)
    return store
