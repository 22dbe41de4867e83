"""Seconds to parse every DAG, as Airflow's processor does, against importing Airflow alone.

Run by Airflow's environment: `.venv-airflow/bin/python -m benchmarks.dags`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

DAGS = Path(__file__).resolve().parents[1] / "dags"
REPEATS = 5
PARSE = f"""
import time
from pathlib import Path
start = time.perf_counter()
from airflow.dag_processing.dagbag import BundleDagBag
import airflow.sdk
imported = time.perf_counter()
bag = BundleDagBag(dag_folder={str(DAGS)!r}, bundle_path=Path({str(DAGS)!r}), bundle_name="dags-folder")
parsed = time.perf_counter()
assert bag.dags and not bag.import_errors, bag.import_errors
print(len(bag.dags), imported - start, parsed - imported)
"""


def main() -> None:
    """The best of REPEATS fresh processes: what they do besides parsing is Airflow's, and the floor."""
    runs = [_parse() for _ in range(REPEATS)]
    imported, parsed = (min(run[column] for run in runs) for column in (1, 2))
    print(f"{runs[0][0]:.0f} DAGs parsed in {parsed:.2f} s; importing Airflow alone takes {imported:.2f} s")


def _parse() -> list[float]:
    with tempfile.TemporaryDirectory() as home:
        settings = {"AIRFLOW_HOME": home, "PYTHONPATH": str(DAGS), "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING"}
        done = subprocess.run(
            [sys.executable, "-c", PARSE], env={**os.environ, **settings}, capture_output=True, text=True, check=True
        )
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


if __name__ == "__main__":
    main()
