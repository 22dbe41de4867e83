"""The real thing: `make airflow`'s scheduler runs the chain to a promoted adapter, with kills and runs in its way."""

import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ratchet_pipelines", reason="runs in the work environment: .venv/bin/pytest tests/dags")

import httpx
import psutil

import votes
from ratchet.config import Config
from ratchet.release.ledger import read_ledger
from ratchet.store import open_store
from ratchet_pipelines.demo import stack as services
from ratchet_pipelines.demo.places import who_is_champion
from ratchet_pipelines.demo.prompts import prompts
from ratchet_pipelines.demo.users import Crowd

ROOT = Path(__file__).resolve().parents[2]
AIRFLOW = ROOT / ".venv-airflow"
PATIENCE_S = 900.0
READING_S = (
    10.0  # Airflow 3.3.2 asks again if the answer comes before the scheduler has seen the question's process end
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not (AIRFLOW / "bin" / "airflow").exists(), reason=f"{AIRFLOW} is absent"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


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
def standalone(folder: Path, lake: Path) -> Iterator[Airflow]:
    """What `make airflow` starts, on a free port and a home of its own."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        "AIRFLOW_HOME": str(folder / "airflow"),
        "PORT": str(port),
        "RATCHET_LAKE": str(lake),
        "RATCHET_CONFIG": str(lake / "ratchet.yaml"),
        "RATCHET_MIN_NEW_TRIPLETS": "1",
        "RATCHET_APPROVAL": "on",
        "HF_HUB_OFFLINE": "1",
    }
    log = folder / "airflow.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [ROOT / "infra" / "airflow" / "standalone.sh"], env=environment, stdout=file, stderr=file,
            start_new_session=True,
        )  # fmt: skip
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


@contextmanager
def users(url: str) -> Iterator[None]:
    """Users who talk and vote as long as the block lasts."""
    enough = threading.Event()
    talking = Crowd(url, prompts(0), 0).keep_visiting(enough)
    try:
        yield
    finally:
        enough.set()
        talking.join()


def lenient(model: Path) -> Config:
    """A tiny random model learns nothing, so both gates are told to let anything pass: the chain is under test."""
    return Config.model_validate(
        {
            "base_model": {"model": str(model), "dtype": "float32"},
            "build_datasets": {"eval_share": 0.5},
            "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2, "sft": {"epochs": 8}, "dpo": {"epochs": 8}},
            "evaluate_adapter": {
                "min_pairs": 4, "max_new_tokens": 4, "resamples": 200, "tolerance": 2.0, "max_perplexity_rise": 1e6,
            },
            "release_adapter": {"poll_s": 0.5, "timeout_s": 600},
            "gate": {"margin": 0.95, "min_votes": 4, "max_minutes": 10, "refresh_s": 0.5},
        }
    )  # fmt: skip


def kill_amid_training(lake: Path) -> bool:
    """SIGKILL the process that trains, if one does and has left a checkpoint."""
    if not any((lake / "work" / "train_adapter").rglob("COMPLETE")):
        return False
    for process in psutil.process_iter(["cmdline"]):
        if {"train_adapter", "--out"} <= set(process.info["cmdline"] or []):
            process.kill()
            return True
    return False


def test_the_scheduler_takes_votes_to_a_promoted_adapter(tmp_path: Path, tiny_model: Path) -> None:
    lake, config = tmp_path / "lake", lenient(tiny_model)
    store = open_store(lake)
    votes.land_votes(store)
    with services.running(lake, config, 0) as stack, standalone(tmp_path, lake) as airflow:
        for dag_id in ("collect_feedback", "train_adapter", "release_adapter"):
            airflow.wait(lambda name=dag_id: name in {dag["dag_id"] for dag in airflow.get("dags")["dags"]}, dag_id)
            airflow.unpause(dag_id)
        assert airflow.get("importErrors")["total_entries"] == 0
        assert airflow.get("pools/gpu")["include_deferred"] is True

        collected = airflow.wait(lambda: airflow.runs("collect_feedback"), "the last full hour is collected")[0]
        collected = collected["dag_run_id"]
        airflow.wait_for_run("collect_feedback", collected)
        dataset = airflow.result("collect_feedback", collected, "build_datasets")["outputs"]["dataset"]["digest"]

        # The dataset's event starts a training, which is killed once; another run asks meanwhile, and queues.
        first = airflow.wait(lambda: airflow.runs("train_adapter"), "the dataset starts a training")[0]
        assert first["partition_key"] == dataset
        airflow.wait(lambda: kill_amid_training(lake), "a training that has a checkpoint")
        second = airflow.trigger("train_adapter", force=True)
        assert airflow.state("train_adapter", second) == "queued"
        airflow.wait_for_run("train_adapter", first["dag_run_id"])
        assert airflow.task("train_adapter", first["dag_run_id"], "train_adapter")["try_number"] == 2
        digest = airflow.result("train_adapter", first["dag_run_id"], "train_adapter")["outputs"]["adapter"]["digest"]

        with users(stack.gateway_url):
            released = airflow.wait(lambda: airflow.runs("release_adapter"), "the adapter starts a release")[0]
            assert released["partition_key"] == digest
            another = airflow.trigger("release_adapter")
            assert airflow.state("release_adapter", another) == "queued"
            assert "| preference_accuracy | pass |" in airflow.answer(released["dag_run_id"], "Approve")
            airflow.wait_for_run("release_adapter", released["dag_run_id"])
        outcome = airflow.result("release_adapter", released["dag_run_id"], "release_adapter")
        assert outcome["decision"] == "promoted", outcome["why"]
        places = who_is_champion(services.released_to(config, stack), store)
        assert {place.digest for place in places} == {digest}

        # Those that queued: a training finds the work done, a release is turned down.
        airflow.wait_for_run("train_adapter", second)
        assert not airflow.result("train_adapter", second, "train_adapter")["did_work"]
        airflow.answer(another, "Reject")
        airflow.wait_for_run("release_adapter", another)
        assert airflow.task("release_adapter", another, "release_adapter")["state"] == "skipped"
        assert airflow.most_at_once == {"collect_feedback": 1, "train_adapter": 1, "release_adapter": 1}
        assert [record.event for record in read_ledger(store)].count("requested") == 1

        # An hour that is filled in later collects what has landed since, like any other.
        hour = airflow.backfill("collect_feedback", "2026-02-03T04:00:00Z")
        airflow.wait_for_run("collect_feedback", hour["dag_run_id"])
        assert hour["partition_key"] == "2026-02-03T04"
