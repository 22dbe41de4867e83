"""The chain of DAGs by `dag.test`, on a tiny real model: each takes up what the one before announced."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from dags.conftest import ROOT, WORK, work_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# A tiny random model learns nothing, so the gate is told to let anything pass: the chain is under test here.
PREPARE = """
import sys, yaml, tiny_model, votes
from pathlib import Path
from ratchet.store import open_store
folder = Path(sys.argv[1])
votes.land_votes(open_store(folder / "lake"))
(folder / "ratchet.yaml").write_text(yaml.safe_dump({
    "base_model": {"model": str(tiny_model.build(folder / "tiny")), "dtype": "float32"},
    "build_datasets": {"eval_share": 0.5},
    "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2},
    "evaluate_adapter": {
        "min_pairs": 4, "max_new_tokens": 4, "resamples": 200, "tolerance": 2.0, "max_perplexity_rise": 1e6,
    },
}))
"""
RUN = """
import json, sys
from airflow.dag_processing.dagbag import BundleDagBag
from pathlib import Path
bag = BundleDagBag(dag_folder="dags", bundle_path=Path("dags").resolve(), bundle_name="dags-folder")
for name in sys.argv[1:]:
    bag.dags[name].deadline = None  # airflow 3.3.2's dag.test looks it up by an id that it never gave it
    run = bag.dags[name].test(run_conf={"min_new_triplets": 1} if name == "train_adapter" else None)
    print("RUN", name, run.state, json.dumps({ti.task_id: ti.state for ti in run.get_task_instances()}))
"""


def test_the_chain_reaches_a_release_and_a_second_look_finds_the_work_done(tmp_path: Path) -> None:
    work_python(PREPARE, tmp_path)
    first = run_dags(tmp_path, "collect_feedback", "train_adapter", "release_adapter", "watch_drift")
    assert set(first["train_adapter"].values()) == {"success"}
    assert set(first["release_adapter"].values()) == {"success"}
    assert first["watch_drift"] == {"measure_drift": "success", "has_drifted": "success", "report_drift": "skipped"}
    [release] = (tmp_path / "lake" / "manifests" / "release_adapter").glob("*.json")
    assert '"no_target"' in release.read_text()
    again = run_dags(tmp_path, "collect_feedback", "train_adapter")
    assert again["train_adapter"]["choose_dataset"] == "success"
    assert again["train_adapter"]["train_adapter"] == "skipped"


def run_dags(folder: Path, *names: str) -> dict[str, dict[str, str]]:
    """Run the DAGs one after the other; the state of each task."""
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(folder / "airflow"),
        "RATCHET_COMMAND": str(WORK / "ratchet"),
        "RATCHET_LAKE": str(folder / "lake"),
        "RATCHET_CONFIG": str(folder / "ratchet.yaml"),
    }
    airflow = Path(sys.executable).parent / "airflow"
    subprocess.run([airflow, "db", "migrate"], env=environment, check=True, capture_output=True)
    subprocess.run([airflow, "pools", "set", "gpu", "1", ""], env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [sys.executable, "-c", RUN, *names], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(" ", 3) for line in done.stdout.splitlines() if line.startswith("RUN ")]
    assert [line[1] for line in lines] == list(names), done.stdout + done.stderr
    return {line[1]: json.loads(line[3]) for line in lines}
