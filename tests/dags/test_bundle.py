"""The DAGs as Airflow takes them from Git: by Airflow's own bundle, at a commit, from a checkout that has only them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from dags.conftest import DAGS

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

# As the DAG processor and a task do it, with the keywords of `dagBundleConfigList` in infra/airflow/values.yaml.
PARSE = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag
from airflow.providers.git.bundles.git import GitDagBundle
bundle = GitDagBundle(
    name="ratchet", version=sys.argv[1] or None,
    git_conn_id="ratchet_git", tracking_ref="main", subdir="dags", refresh_interval=300,
)
bundle.initialize()
version = bundle.get_current_version()
bag = BundleDagBag(dag_folder=str(bundle.path), bundle_path=bundle.path, bundle_name="ratchet")
print(json.dumps({
    "version": version.version, "errors": bag.import_errors, "dags": sorted(bag.dags),
    "owner": sorted({dag.owner for dag in bag.dags.values()}),
}))
"""


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def parse(repository: Path, home: Path, pods_file: Path, version: str = "") -> dict[str, object]:
    environment = {
        **os.environ,
        "AIRFLOW_CONN_RATCHET_GIT": json.dumps({"conn_type": "git", "host": str(repository)}),
        "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(home),
        "RATCHET_EXECUTION": "kubernetes",
        "RATCHET_PODS": str(pods_file),
    }
    done = subprocess.run(
        [sys.executable, "-c", PARSE, version], cwd=home, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_run_keeps_the_commit_that_it_began_with_while_others_take_the_newest(
    tmp_path: Path, pods_file: Path
) -> None:
    """And nothing in dags/ asks for a file beside dags/."""
    repository = tmp_path / "repository"
    shutil.copytree(DAGS, repository / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    git(repository, "init", "--quiet")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "-m", "first")
    first = git(repository, "rev-parse", "HEAD")
    policies = repository / "dags" / "_common" / "policies.py"
    policies.write_text(policies.read_text().replace('OWNER = "ratchet-operators"', 'OWNER = "someone-else"'))
    git(repository, "commit", "--quiet", "-am", "second")
    second = git(repository, "rev-parse", "HEAD")
    home = tmp_path / "bundles"
    home.mkdir()
    newest = parse(repository, home, pods_file)
    dags = sorted(path.stem for path in DAGS.glob("*.py"))
    assert newest == {"version": second, "errors": {}, "dags": dags, "owner": ["someone-else"]}
    assert parse(repository, home, pods_file, first) == {**newest, "version": first, "owner": ["ratchet-operators"]}
