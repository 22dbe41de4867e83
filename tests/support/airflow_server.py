"""A real Airflow, as `make airflow` starts it, driven by its public API as a person would."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW = ROOT / ".venv-airflow"
PATIENCE_S = 900.0
READING_S = (
    10.0  # Airflow 3.3.2 asks again if the answer comes before the scheduler has seen the question's process end
)


class Airflow:
    """A running Airflow, by its public API."""

    def __init__(self, url: str, log: Path) -> None:
        self.client = httpx.Client(base_url=url, timeout=60)
        self.log = log
        self.most_at_once: dict[str, int] = {}

    def log_in(self) -> None:
        token = self.client.get("/auth/token").raise_for_status().json()["access_token"]
        self.client.headers["Authorization"] = f"Bearer {token}"

    def get(self, path: str) -> Any:
        return self.client.get(f"/api/v2/{path}").raise_for_status().json()

    def is_healthy(self) -> bool:
        try:
            health = self.get("monitor/health")
        except httpx.HTTPError:
            return False
        return all(health[part]["status"] == "healthy" for part in ("scheduler", "dag_processor", "triggerer"))

    def unpause(self, dag_id: str) -> None:
        self.client.patch(f"/api/v2/dags/{dag_id}", json={"is_paused": False}).raise_for_status()

    def trigger(self, dag_id: str, **conf: Any) -> str:
        body = {"logical_date": None, "conf": conf}
        return str(
            self.client.post(f"/api/v2/dags/{dag_id}/dagRuns", json=body).raise_for_status().json()["dag_run_id"]
        )

    def backfill(self, dag_id: str, at: str) -> dict[str, Any]:
        """The run for an hour of the past: of a partitioned DAG, the dates are those of partitions."""
        body = {"dag_id": dag_id, "from_date": at, "to_date": at, "max_active_runs": 1}
        made = self.client.post("/api/v2/backfills", json=body).raise_for_status().json()
        return next(run for run in self.runs(dag_id) if run["run_type"] == "backfill" and made["id"])

    def runs(self, dag_id: str) -> list[dict[str, Any]]:
        """All runs, oldest first."""
        found: list[dict[str, Any]] = self.get(f"dags/{dag_id}/dagRuns?order_by=run_after")["dag_runs"]
        num_running = sum(run["state"] == "running" for run in found)
        self.most_at_once[dag_id] = max(num_running, self.most_at_once.get(dag_id, 0))
        return found

    def state(self, dag_id: str, run_id: str) -> str:
        return next(str(run["state"]) for run in self.runs(dag_id) if run["dag_run_id"] == run_id)

    def task(self, dag_id: str, run_id: str, task_id: str) -> dict[str, Any]:
        found: dict[str, Any] = self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}")
        return found

    def result(self, dag_id: str, run_id: str, task_id: str) -> Any:
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value?stringify=false"
        return self.get(path)["value"]

    def answer(self, run_id: str, chosen: str) -> str:
        """Answer a release's question for approval as a person would, and return what they were shown."""
        path = f"dags/release_adapter/dagRuns/{run_id}/taskInstances/approve/-1/hitlDetails"
        shown: list[str] = []

        def is_answered() -> bool:
            question = self._find(path)
            if question is not None and not question["response_received"]:
                shown.append(question["body"])
                time.sleep(READING_S)
                self.client.patch(f"/api/v2/{path}", json={"chosen_options": [chosen]}).raise_for_status()
            return bool(self.task("release_adapter", run_id, "approve")["state"] == "success")

        self.wait(is_answered, f"{run_id} asks for approval and takes the answer")
        return shown[-1]

    def _find(self, path: str) -> Any:
        answer = self.client.get(f"/api/v2/{path}")
        return None if answer.status_code == httpx.codes.NOT_FOUND else answer.raise_for_status().json()

    def wait(self, claim: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while not (found := claim()):
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-40:])
            assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}\n{tail}"
            time.sleep(0.2)
        return found

    def wait_for_run(self, dag_id: str, run_id: str) -> None:
        end = self.wait(lambda: {"success", "failed"} & {self.state(dag_id, run_id)}, f"an end of {dag_id} {run_id}")
        assert end == {"success"}, self.get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")


@contextmanager
def standalone(folder: Path, lake: Path, settings: Path, **environment: str) -> Iterator[Airflow]:
    """What `make airflow` starts, on a free port and a home of its own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(folder / "airflow"),
        "PORT": str(port),
        "RATCHET_LAKE": str(lake),
        "RATCHET_CONFIG": str(settings),
        "RATCHET_MIN_NEW_TRIPLETS": "1",
        "HF_HUB_OFFLINE": "1",
        **environment,
    }
    log = folder / "airflow.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [ROOT / "infra" / "airflow" / "standalone.sh"],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    airflow = Airflow(f"http://127.0.0.1:{port}", log)
    try:
        airflow.wait(lambda: process.poll() is None and airflow.is_healthy(), "Airflow is healthy")
        airflow.log_in()
        yield airflow
    finally:
        stop(process)
        airflow.client.close()


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C, then whatever is left: tasks run in sessions of their own."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.send_signal(signal.SIGINT)
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        if child.is_running():
            child.kill()
    psutil.wait_procs(family, timeout=10)
