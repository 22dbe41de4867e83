"""Every DAG parses, keeps the house rules, and has the edges that its golden file and the loop's graph say."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from _common.policies import OWNER, RETRY_POLICY, Tag
from support.orchestrator_edges import airflow_edges

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "edges.json"
DAG_IDS = ["collect_feedback", "reconcile_releases", "release_adapter", "train_adapter", "watch_drift"]
HEAVY = {"torch", "mlflow", "pandas", "polars", "numpy", "kfp", "ratchet", "kubernetes", "openlineage"}

each_dag = pytest.mark.parametrize("dag_id", DAG_IDS)


def edges(dag: Any) -> list[list[str]]:
    return sorted([task.task_id, after] for task in dag.tasks for after in task.downstream_task_ids)


def edges_elsewhere(environment: dict[str, str]) -> dict[str, list[list[str]]]:
    """The edges as an Airflow with these settings parses them."""
    code = (
        "import json; from pathlib import Path; from airflow.dag_processing.dagbag import BundleDagBag as Bag;"
        "bag = Bag(dag_folder='dags', bundle_path=Path('dags').resolve(), bundle_name='dags-folder');"
        "assert not bag.import_errors, bag.import_errors;"
        "print(json.dumps({d.dag_id: sorted([t.task_id, a] for t in d.tasks for a in t.downstream_task_ids)"
        " for d in bag.dags.values()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[list[str]]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_all_dags_are_there_and_none_has_an_import_error(bag: Any) -> None:
    assert bag.import_errors == {}
    assert sorted(bag.dags) == DAG_IDS


def test_nothing_heavy_is_imported_to_parse_them() -> None:
    code = (
        "import sys; from pathlib import Path; from airflow.dag_processing.dagbag import BundleDagBag as Bag;"
        "bag = Bag(dag_folder='dags', bundle_path=Path('dags').resolve(), bundle_name='dags-folder');"
        "assert len(bag.dags) == 5, bag.import_errors;"
        "print(*{name.split('.')[0] for name in sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not HEAVY & set(done.stdout.splitlines()[-1].split())


@each_dag
def test_a_dag_has_one_version_however_often_it_is_parsed(dag_id: str) -> None:
    from airflow.utils.dag_version_inflation_checker import check_dag_file_stability

    found = check_dag_file_stability(ROOT / "dags" / f"{dag_id}.py")
    assert found.check_level.value == "error"
    assert found.format_warnings() is None


@each_dag
def test_a_dag_says_who_owns_it_what_it_is_and_what_to_do_when_it_fails(bag: Any, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert dag.owner == OWNER
    assert dag.doc_md.strip().startswith("## When it fails\n\n1. ")
    assert {tag.split(":")[0] for tag in dag.tags} == {"stage", "impact"}
    assert len(dag.tags) == 2
    assert set(dag.tags) <= set(Tag)


@each_dag
def test_a_dag_bounds_its_runs_in_number_and_time(bag: Any, dag_id: str) -> None:
    dag = bag.dags[dag_id]
    assert dag.max_active_runs == 1
    assert dag.dagrun_timeout is not None
    assert dag.deadline
    assert dag.catchup is False
    assert dag.start_date is not None


@each_dag
def test_a_task_is_retried_bounded_in_time_and_told_of(bag: Any, dag_id: str) -> None:
    for task in bag.dags[dag_id].tasks:
        assert task.retries >= 2, task.task_id
        assert task.execution_timeout is not None, task.task_id
        assert task.on_failure_callback, task.task_id
        if hasattr(task, "program"):
            assert task.retry_policy is RETRY_POLICY, task.task_id


def test_steps_that_load_a_model_wait_for_a_slot_of_the_gpu_pool(bag: Any) -> None:
    in_pool = {task.task_id for dag in bag.dags.values() for task in dag.tasks if task.pool == "gpu"}
    assert in_pool == {"train_adapter", "evaluate_adapter"}


def test_edges_are_the_golden_ones(bag: Any, pods_file: Path) -> None:
    found = {
        "local": {dag_id: edges(bag.dags[dag_id]) for dag_id in DAG_IDS},
        "kubernetes": edges_elsewhere({"RATCHET_EXECUTION": "kubernetes", "RATCHET_PODS": str(pods_file)}),
    }
    if os.environ.get("REGENERATE"):
        GOLDEN.write_text(json.dumps(found, indent=1) + "\n")
    assert found == json.loads(GOLDEN.read_text())


def test_steps_and_edges_of_all_dags_are_the_loops_own(bag: Any, graph: dict[str, list[str]]) -> None:
    found: dict[str, list[str]] = {}
    for dag in bag.dags.values():
        assert not set(found) & set(airflow_edges([dag])), "a step belongs to one DAG"
        found |= airflow_edges([dag])
    assert found == graph


def test_a_step_runs_after_every_task_that_it_reads(bag: Any) -> None:
    for dag in bag.dags.values():
        for task in dag.tasks:
            read = re.findall(r"xcom_pull\('(\w+)'\)", " ".join(getattr(task, "arguments", [])))
            assert set(read) <= task.upstream_task_ids


def test_airflow_finds_nothing_deprecated() -> None:
    ruff = ROOT / ".venv" / "bin" / "ruff"
    if not ruff.exists():
        pytest.skip(f"{ruff} is absent")
    done = subprocess.run([ruff, "check", "--no-cache", "--preview", "--select", "AIR", "dags"], cwd=ROOT)
    assert done.returncode == 0
