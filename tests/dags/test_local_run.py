"""The chain of DAGs by `dag.test`, on a tiny real model: each takes up what the one before announced, and says so."""

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from dags.conftest import work_python
from support.airflow_dags import run_dags
from support.webhook_server import receiver

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# A tiny random model learns nothing, so the gate is told to let anything pass: the chain is under test here.
PREPARE = """
import sys, yaml
from pathlib import Path
from ratchet.store import open_store
from support import tiny_model, vote_factory
folder = Path(sys.argv[1])
vote_factory.land_votes(open_store(folder / "lake"))
(folder / "ratchet.yaml").write_text(yaml.safe_dump({
    "base_model": {"model": str(tiny_model.build(folder / "tiny")), "dtype": "float32"},
    "build_datasets": {"eval_share": 0.5},
    "train_adapter": {"max_tokens": 96, "checkpoint_steps": 2},
    "evaluate_adapter": {
        "min_pairs": 4, "max_new_tokens": 4, "resamples": 200,
        "non_inferiority_margin": 2.0, "max_perplexity_rise": 1e6,
    },
}))
"""


def test_the_chain_reaches_a_release_and_a_second_look_finds_the_work_done(tmp_path: Path) -> None:
    work_python(PREPARE, tmp_path)
    places = (tmp_path / "lake", tmp_path / "ratchet.yaml", tmp_path / "airflow")
    with receiver() as (url, got):
        transport = json.dumps({"type": "http", "url": url})
        dags = ("collect_feedback", "train_adapter", "release_adapter", "watch_drift")
        first = run_dags(*places, *dags, AIRFLOW__OPENLINEAGE__TRANSPORT=transport)
    assert_that_lineage_is_joined([each["body"] for each in got])
    assert set(first["train_adapter"].values()) == {"success"}
    assert set(first["release_adapter"].values()) == {"success"}
    assert first["watch_drift"] == {"measure_drift": "success", "has_drifted": "success", "report_drift": "skipped"}
    [release] = (tmp_path / "lake" / "manifests" / "release_adapter").glob("*.json")
    assert '"no_target"' in release.read_text()
    again = run_dags(*places, "collect_feedback", "train_adapter")
    assert again["train_adapter"]["choose_dataset"] == "success"
    assert again["train_adapter"]["train_adapter"] == "skipped"


def assert_that_lineage_is_joined(events: list[dict[str, Any]]) -> None:
    """Each manifest that a step reads is one that a step made, with the same digest; across DAGs too."""
    done = {each["job"]["name"]: each for each in events if each["eventType"] == "COMPLETE"}
    made = {key for each in done.values() for key in versions(each["outputs"])}
    read = {name: versions(each["inputs"]) for name, each in done.items() if each["inputs"]}
    assert {name: len(inputs) for name, inputs in read.items()} == {
        "collect_feedback.validate_triplets": 1,
        "collect_feedback.build_datasets": 1,
        "train_adapter.train_adapter": 1,
        "train_adapter.evaluate_adapter": 2,
        "train_adapter.register_adapter": 3,
        "release_adapter.release_adapter": 3,
    }
    assert {one for inputs in read.values() for one in inputs} <= made


def versions(datasets: list[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(one["namespace"], one["name"], one["facets"]["version"]["datasetVersion"]) for one in datasets}
