"""The real thing: `make airflow`'s scheduler runs the chain to a promoted adapter, with kills and runs in its way."""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("ratchet_pipelines", reason="runs in the work environment: .venv/bin/pytest tests/dags")

import psutil

from ratchet.config import Config
from ratchet.release.ledger import read_ledger
from ratchet.scheduler_claim import scheduler_of
from ratchet.store import open_store
from ratchet_pipelines import local_stack as services
from ratchet_pipelines.demo.places import who_is_champion
from ratchet_pipelines.demo.prompts import prompts
from ratchet_pipelines.demo.users import Crowd
from support import vote_factory
from support.airflow_server import AIRFLOW, standalone

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not (AIRFLOW / "bin" / "airflow").exists(), reason=f"{AIRFLOW} is absent"),
    pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed"),
]


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
                "min_pairs": 4,
                "max_new_tokens": 4,
                "resamples": 200,
                "non_inferiority_margin": 2.0,
                "max_perplexity_rise": 1e6,
            },
            "release_adapter": {"poll_s": 0.5, "timeout_s": 900, "approval": "person"},
            "gate": {"non_inferiority_margin": 0.95, "min_votes": 4, "max_minutes": 10, "refresh_s": 0.5},
        }
    )


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
    vote_factory.land_votes(store)
    with (
        services.running(lake, config, 0) as stack,
        standalone(tmp_path, lake, lake / "ratchet.yaml", RATCHET_APPROVAL="on") as airflow,
    ):
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
        approved = [record for record in read_ledger(store) if record.event == "approved"]
        assert [record.why for record in approved] == ["approved in Airflow"]
        assert (scheduler_of(store, time.time()) or ("", 0))[0] == "airflow"

        # An hour that is filled in later collects what has landed since, like any other.
        hour = airflow.backfill("collect_feedback", "2026-02-03T04:00:00Z")
        airflow.wait_for_run("collect_feedback", hour["dag_run_id"])
        assert hour["partition_key"] == "2026-02-03T04"
