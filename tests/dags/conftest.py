"""Airflow on a throwaway database, the DAGs as its processor sees them, and the work environment beside it."""

import atexit
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DAGS = ROOT / "dags"
WORK = ROOT / ".venv" / "bin"

# Airflow reads these once, at its first import.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="airflow-")
atexit.register(shutil.rmtree, os.environ["AIRFLOW_HOME"], ignore_errors=True)
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
os.environ["AIRFLOW__CORE__DAGS_FOLDER"] = str(DAGS)
os.environ["AIRFLOW__DAG_PROCESSOR__DAG_VERSION_INFLATION_CHECK_LEVEL"] = "error"
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "WARNING"
sys.path.append(str(DAGS))


@pytest.fixture(scope="session")
def bag() -> Any:
    """Every DAG, parsed as a bundle."""
    from airflow.dag_processing.dagbag import BundleDagBag

    return BundleDagBag(dag_folder=str(DAGS), bundle_path=DAGS, bundle_name="dags-folder")


def work_python(code: str, *args: str | Path) -> str:
    """What a program prints that runs in the work environment, with the tests' own modules at hand."""
    if not WORK.is_dir():
        pytest.skip(f"no work environment: {WORK} is absent; `make setup` makes it")
    done = subprocess.run(
        [WORK / "python", "-c", code, *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def graph() -> dict[str, list[str]]:
    """The loop's own graph: each step and what it reads."""
    code = (
        "import json; from ratchet_pipelines.graph import STEPS; print(json.dumps({s.name: s.inputs for s in STEPS}))"
    )
    found: dict[str, list[str]] = json.loads(work_python(code))
    return found


@pytest.fixture(scope="session")
def pods_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What production says of its pods."""
    path = tmp_path_factory.mktemp("pods") / "pods.json"
    image = "registry.example.com/ratchet-components"
    settings = {
        "images": {"cpu": f"{image}@sha256:{'1' * 64}", "cuda": f"{image}-cuda@sha256:{'2' * 64}"},
        "lake": "s3://ratchet-lake/production",
        "gpu_node_selector": {"ratchet.dev/gpu": "true"},
    }
    path.write_text(json.dumps(settings))
    return path
