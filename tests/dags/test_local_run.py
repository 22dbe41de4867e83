"""The chain of DAGs by `dag.test`, on a tiny real model: each takes up what the one before announced."""

from pathlib import Path

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from dags.conftest import work_python
from support.airflow_dags import run_dags

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

# A tiny random model learns nothing, so the gate is told to let anything pass: the chain is under test here.
PREPARE = """
import sys, yaml, tiny_model, votes
from pathlib import Path
from ratchet.store import open_store
folder = Path(sys.argv[1])
votes.land_votes(open_store(folder / "lake"))
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
    first = run_dags(*places, "collect_feedback", "train_adapter", "release_adapter", "watch_drift")
    assert set(first["train_adapter"].values()) == {"success"}
    assert set(first["release_adapter"].values()) == {"success"}
    assert first["watch_drift"] == {"measure_drift": "success", "has_drifted": "success", "report_drift": "skipped"}
    [release] = (tmp_path / "lake" / "manifests" / "release_adapter").glob("*.json")
    assert '"no_target"' in release.read_text()
    again = run_dags(*places, "collect_feedback", "train_adapter")
    assert again["train_adapter"]["choose_dataset"] == "success"
    assert again["train_adapter"]["train_adapter"] == "skipped"
