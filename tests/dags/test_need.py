"""When a dataset is worth a training, and what a person reads before a release."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from _common.gate_report import gate_report
from _common.need import why_train

NOW = datetime(2026, 3, 10, tzinfo=UTC)
YESTERDAY, LAST_WEEK = NOW - timedelta(days=1), NOW - timedelta(days=7)


def why(triplets: int, trained_on: int | None, at: datetime = YESTERDAY, drift: str | None = None) -> str | None:
    last = trained_on and {
        "dataset_digest": f"digest-{trained_on}",
        "triplets": trained_on,
        "announced_at": at.isoformat(),
    }
    dataset = {"digest": f"digest-{triplets}", "triplets": triplets}
    return why_train(dataset, last, NOW, min_new=500, drift=drift)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((500, None), "500 new triplets"),
        ((1500, 1000), "500 new triplets, at least 500"),
        ((1001, 1000, LAST_WEEK), "1 new triplets, and the last training was on 2026-03-03"),
        ((1001, 1000, YESTERDAY, "approval moved"), "drift: approval moved"),
    ],
)
def test_a_dataset_is_trained_on_for_a_reason(given: tuple[Any, ...], words: str) -> None:
    assert str(why(*given)).startswith(words)


@pytest.mark.parametrize("given", [(499, None), (1499, 1000), (1001, 1000)])
def test_too_little_that_is_new_waits(given: tuple[Any, ...]) -> None:
    assert why(*given) is None


def test_the_same_dataset_is_never_trained_on_again() -> None:
    assert why(1000, 1000, LAST_WEEK, "approval moved") is None


CHECK = {
    "name": "preference_accuracy", "verdict": "pass", "candidate": 0.9, "incumbent": 0.4, "difference": 0.5,
    "low": 0.3, "high": 0.7, "required": True, "why": "14 pairs won | 1 lost",
}  # fmt: skip
ADAPTER = {
    "digest": "abc", "dataset_digest": "def", "triplets": 264, "reason": "264 new triplets", "verdict": "pass",
    "why": "all 6 required checks passed",
    "checks": [CHECK, {**CHECK, "name": "safety", "low": None, "high": None, "required": False}],
}  # fmt: skip


def test_the_report_shows_what_the_gate_decided_on() -> None:
    lines = gate_report(ADAPTER).splitlines()
    assert "- Verdict: **pass**: all 6 required checks passed" in lines
    assert lines[-2] == (
        "| preference_accuracy | pass | 0.900 | 0.400 | 0.500 | 0.300 to 0.700 | 14 pairs won \\| 1 lost |"
    )
    assert "safety (informs)" in lines[-1]
    assert "alarm only" in lines[-1]


def test_a_candidate_that_already_serves_was_not_checked() -> None:
    assert gate_report({**ADAPTER, "checks": []}).endswith("There were no checks.")
