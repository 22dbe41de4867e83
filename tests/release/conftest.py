"""A values repository in real Git, a fake cluster, and the configuration that names both."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.config import Config
from ratchet.store import LocalStore
from support import tiny_adapter
from support.release_edges import NEW, VALUES, FakeCluster, git, serving


@pytest.fixture
def cluster() -> Iterator[FakeCluster]:
    fake = FakeCluster()
    with serving(fake.app) as url:
        fake.url = url
        yield fake


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A bare repository whose main branch holds env/values.yaml, naming the base model."""
    bare, work = tmp_path / "deploy.git", tmp_path / "first"
    git("init", "--quiet", "--bare", "--initial-branch=main", str(bare), cwd=tmp_path)
    git("clone", "--quiet", str(bare), str(work), cwd=tmp_path)
    git("checkout", "--quiet", "-B", "main", cwd=work)
    (work / "env").mkdir()
    (work / "env/values.yaml").write_text(VALUES)
    git("add", ".", cwd=work)
    git("commit", "--quiet", "-m", "Serve the base model", cwd=work)
    git("push", "--quiet", "origin", "main", cwd=work)
    return bare


@pytest.fixture
def config(cluster: FakeCluster, repository: Path) -> Config:
    checked = Config.model_validate(
        {
            "release_adapter": {
                "git_url": str(repository),
                "values_path": "env/values.yaml",
                "cluster_url": cluster.url,
                "poll_s": 0.01,
            },
            "gate": {"refresh_s": 0.05, "harm_horizon_s": 0.1, "promotion_horizon_s": 0.1},
        }
    )
    # A test waits for less than an undecided canary may take, which is refused of a user.
    return checked.model_copy(update={"release_adapter": checked.release_adapter.model_copy(update={"timeout_s": 20})})


@pytest.fixture(scope="session")
def registered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with two versions of `adapter`: 1 has been champion, 2 is the challenger."""
    from ratchet.registry.mlflow_store import connect
    from ratchet.store import open_store

    folder = tmp_path_factory.mktemp("registered")
    client = connect(Config(), open_store(folder))
    client.create_registered_model("adapter")
    for digest in ("a" * 64, NEW.digest):
        client.create_model_version("adapter", source=folder.as_uri(), tags={"adapter_digest": digest})
    client.set_registered_model_alias("adapter", "champion", "1")
    client.set_registered_model_alias("adapter", "challenger", "2")
    return folder / "mlflow.db"


@pytest.fixture
def released_lake(lake: LocalStore, registered: Path) -> LocalStore:
    """A lake whose registry holds the candidate, and what the register step wrote about it."""
    lake.path.mkdir()
    tiny_adapter.smallest(lake.path / "adapters" / NEW.digest)
    shutil.copy(registered, lake.path / "mlflow.db")
    described = {
        "name": NEW.name,
        "version": NEW.version,
        "adapter_digest": NEW.digest,
        "adapter_uri": f"adapters/{NEW.digest}",
        "verdict": "pass",
    }
    lake.create(f"registry/{NEW.digest}.json", json.dumps(described).encode())
    return lake
