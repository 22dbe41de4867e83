"""DAGs by Airflow's own `dag.test`, in Airflow's environment, without a scheduler."""

import json
import os
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
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


def run_dags(lake: Path, settings: Path, home: Path, *names: str, **variables: str) -> dict[str, dict[str, str]]:
    """Run the DAGs one after the other on a lake; the state of each task.

    `home` is Airflow's own folder; `variables` are more of the environment, or other values of it.
    """
    programs = ROOT / ".venv-airflow" / "bin"
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "PYTHONPATH": str(ROOT / "dags"),
        "RATCHET_COMMAND": str(ROOT / ".venv" / "bin" / "ratchet"),
        "RATCHET_LAKE": str(lake),
        "RATCHET_CONFIG": str(settings),
        **variables,
    }
    for command in (["db", "migrate"], ["pools", "set", "gpu", "1", ""]):
        subprocess.run([programs / "airflow", *command], env=environment, check=True, capture_output=True)
    done = subprocess.run(
        [programs / "python", "-c", RUN, *names], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.split(" ", 3) for line in done.stdout.splitlines() if line.startswith("RUN ")]
    assert [line[1] for line in lines] == list(names), done.stdout + done.stderr
    return {line[1]: json.loads(line[3]) for line in lines}
