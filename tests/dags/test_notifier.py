"""What is said of a failure and of a late run, and where it goes."""

import json
from types import SimpleNamespace

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from _common.notifier import Notify, describe
from support.webhook_server import receiver

FAILED = {
    "ti": SimpleNamespace(dag_id="train_adapter", task_id="evaluate_adapter", try_number=2, run_id="run-1"),
    "dag_run": None,
    "exception": ValueError("7 of 9 rows lack a vote"),
}
LATE = {
    "dag_run": {"dag_id": "collect_feedback", "dag_run_id": "run-2"},
    "deadline": {"deadline_time": "2026-01-01T01:00:00Z"},
}


def test_a_failure_names_its_task_and_its_own_message() -> None:
    assert describe("failed", FAILED) == (
        "Ratchet: train_adapter.evaluate_adapter failed (try 2, run run-1)\n7 of 9 rows lack a vote"
    )


def test_a_late_run_has_no_task() -> None:
    assert describe("is late", LATE) == "Ratchet: collect_feedback is late: run-2, due 2026-01-01T01:00:00Z"


def test_a_webhook_gets_the_text_and_the_token(monkeypatch: pytest.MonkeyPatch) -> None:
    with receiver() as (url, got):
        found = {"conn_type": "generic", "host": f"{url}/hook", "password": "secret"}
        monkeypatch.setenv("AIRFLOW_CONN_RATCHET_ALERTS", json.dumps(found))
        Notify()(FAILED)
    assert got[0]["path"] == "/hook"
    assert got[0]["token"] == "Bearer secret"
    assert got[0]["body"]["text"].endswith("7 of 9 rows lack a vote")


def test_without_a_host_it_is_only_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_RATCHET_ALERTS", json.dumps({"conn_type": "generic"}))
    Notify(what="is late")(LATE)
