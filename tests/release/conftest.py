"""A values repository in real Git, a fake cluster, and the configuration that names both."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from ratchet.config import Config
from release.edges import VALUES, FakeCluster, git, serving


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
    return Config.model_validate(
        {
            "release_adapter": {
                "git_url": str(repository),
                "values_path": "env/values.yaml",
                "cluster_url": cluster.url,
                "poll_s": 0.01,
                "timeout_s": 20,
            },
            "gate": {"refresh_s": 0.05},
        }
    )
