"""One small input through every front door: the same steps, the same edges, the same bytes."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ratchet.lineage import all_manifests
from ratchet.store import open_store
from ratchet_pipelines.graph import STEPS
from support import vote_factory
from support.airflow_dags import run_dags
from support.airflow_server import standalone
from support.argo_commands import config_map, run_workflow
from support.orchestrator_edges import Edges, argo_edges, kubeflow_edges

ROOT = Path(__file__).resolve().parents[1]
AIRFLOW = ROOT / ".venv-airflow" / "bin"
CHAIN = ("collect_feedback", "train_adapter", "release_adapter")
# A tiny random model learns nothing, so the verdict is told to let anything pass: every step is to run.
SECTIONS = {
    "build_datasets": {"eval_share": 0.5},
    "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2},
    "evaluate_adapter": {
        "min_pairs": 4, "max_new_tokens": 4, "resamples": 200,
        "non_inferiority_margin": 2.0, "max_perplexity_rise": 1e6,
    },
}  # fmt: skip

pytestmark = [
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not AIRFLOW.is_dir(), reason=f"{AIRFLOW} is absent; `make airflow` makes it"),
]


def by_local_run(lake: Path, settings: Path, folder: Path) -> None:
    command = [ROOT / ".venv" / "bin" / "ratchet", "run", "--lake", lake, "--config", settings]
    subprocess.run(command, check=True, capture_output=True)


def by_dag_test(lake: Path, settings: Path, folder: Path) -> None:
    run_dags(lake, settings, folder / "airflow", *CHAIN)


def by_scheduler(lake: Path, settings: Path, folder: Path) -> None:
    with standalone(folder, lake, settings, RATCHET_APPROVAL="off") as airflow:
        for dag_id in CHAIN:
            airflow.wait(lambda name=dag_id: name in {dag["dag_id"] for dag in airflow.get("dags")["dags"]}, dag_id)
            airflow.unpause(dag_id)
        for dag_id in CHAIN:
            run = airflow.wait(lambda name=dag_id: airflow.runs(name), f"a run of {dag_id}")[0]
            airflow.wait_for_run(dag_id, run["dag_run_id"])


def by_kubeflow(lake: Path, settings: Path, folder: Path) -> None:
    from kfp import local

    from ratchet_pipelines.kubeflow.pipelines import Images, build_pipelines

    local.init(local.SubprocessRunner(use_venv=False), str(folder / "outputs"), str(folder / "workspace"))
    images = Images(cpu=f"python@sha256:{'0' * 64}")  # kfp.local warns of images without "python" in their names
    build_pipelines(images, needs={})["ratchet"](lake=str(lake), config=settings.read_text(), release=True)


def by_argo(lake: Path, settings: Path, folder: Path) -> None:
    documents = [doc for file in WORKFLOWS.glob("ratchet-*.yaml") for doc in yaml.safe_load_all(file.read_text())]
    run_workflow([*documents, config_map(lake, settings)], {}, folder)


WORKFLOWS = ROOT / "infra" / "argocd" / "workflows"
FRONT_DOORS: dict[str, Callable[[Path, Path, Path], None]] = {
    "local run": by_local_run,
    "Airflow, dag.test": by_dag_test,
    "Airflow, the scheduler": by_scheduler,
    "Kubeflow, kfp.local": by_kubeflow,
    "Argo, the templates' commands": by_argo,
}


@pytest.mark.slow
def test_every_front_door_makes_the_same_bytes(tmp_path: Path, tiny_model: Path) -> None:
    settings = tmp_path / "ratchet.yaml"
    settings.write_text(yaml.safe_dump({"base_model": {"model": str(tiny_model), "dtype": "float32"}, **SECTIONS}))
    made = {}
    for number, (name, run) in enumerate(FRONT_DOORS.items()):
        folder = tmp_path / str(number)
        lake = folder / "lake"
        vote_factory.land_votes(open_store(lake))
        run(lake, settings, folder)
        made[name] = digests(lake)
    assert list(made["local run"]) == sorted(step.name for step in STEPS)
    assert made == dict.fromkeys(made, made["local run"])


def digests(lake: Path) -> dict[str, dict[str, str]]:
    """Of each step's manifest and of everything that it made: dataset, adapter, verdict, release."""
    manifests = sorted(all_manifests(open_store(lake)), key=lambda manifest: manifest.step)
    return {
        manifest.step: {"manifest": manifest.digest} | {name: made.digest for name, made in manifest.outputs.items()}
        for manifest in manifests
    }


def test_every_front_door_has_the_same_steps_and_edges() -> None:
    golden = ROOT / "tests" / "pipelines" / "kubeflow" / "golden" / "ir" / "ratchet.yaml"
    found = {
        "local run": {step.name: list(step.inputs) for step in STEPS},
        "Airflow": airflow_graph(),
        "Kubeflow": kubeflow_edges(next(yaml.safe_load_all(golden.read_text()))),
        "Argo": argo_edges(yaml.safe_load((WORKFLOWS / "ratchet-loop.yaml").read_text())),
    }
    graphs = {name: {step: sorted(inputs) for step, inputs in edges.items()} for name, edges in found.items()}
    assert graphs == dict.fromkeys(graphs, graphs["local run"])


def airflow_graph() -> Edges:
    code = (
        "import json; from pathlib import Path; from airflow.dag_processing.dagbag import BundleDagBag as Bag;"
        "from support.orchestrator_edges import airflow_edges;"
        "bag = Bag(dag_folder='dags', bundle_path=Path('dags').resolve(), bundle_name='dags-folder');"
        "print(json.dumps(airflow_edges(bag.dags.values())))"
    )
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tests'}{os.pathsep}{ROOT / 'dags'}"}
    done = subprocess.run([AIRFLOW / "python", "-c", code], cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    found: Edges = json.loads(done.stdout.splitlines()[-1])
    return found
