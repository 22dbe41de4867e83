"""OpenLineage's events as a collector gets them: Airflow's listener and transport, over HTTP, from tasks that run."""

import json
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("airflow.sdk", reason="runs in Airflow's environment: .venv-airflow/bin/pytest tests/dags")

from support.airflow_dags import run_dags
from support.webhook_server import receiver

pytestmark = pytest.mark.timeout(600)

# A stand-in for `ratchet`: it leaves results as a step does, but refuses to build a second dataset.
PROGRAM = """
import json, os, sys
from pathlib import Path
step = sys.argv[1]
if step == "build_datasets":
    try:
        Path(os.environ["RATCHET_LAKE"], "built").touch(exist_ok=False)
    except FileExistsError:
        sys.exit(2)
outputs = {
    "collect_triplets": {"triplets": {"uri": "tables/triplets", "digest": "d-triplets", "rows": 9}},
    "validate_triplets": {"valid": {"uri": "tables/valid", "digest": "d-valid", "rows": 7}},
    "build_datasets": {"dataset": {"uri": "datasets/d-dataset", "digest": "d-dataset", "rows": None}},
}[step]
result = {"step": step, "uri": f"manifests/{step}/key.json", "digest": f"d-{step}", "outputs": outputs}
Path(sys.argv[-1], "return.json").write_text(json.dumps(result))
"""

Event = dict[str, Any]


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """The lake, and what Airflow posts of two runs of `collect_feedback`, of which the second fails."""
    folder = tmp_path_factory.mktemp("lineage")
    lake = folder / "lake"
    lake.mkdir()
    program = folder / "ratchet"
    program.write_text(f"#!{sys.executable}\n{PROGRAM}")
    program.chmod(0o755)
    with receiver() as (url, got):
        run_dags(
            lake,
            folder / "ratchet.yaml",
            folder / "airflow",
            "collect_feedback",
            "collect_feedback",
            RATCHET_COMMAND=str(program),
            AIRFLOW__OPENLINEAGE__TRANSPORT=json.dumps({"type": "http", "url": url}),
        )
    assert {each["path"] for each in got} == {"/api/v1/lineage"}  # where OpenLineage's collectors listen
    return lake, [each["body"] for each in got]


def by_type(events: list[Event], task: str) -> dict[str, Event]:
    return {each["eventType"]: each for each in events if each["job"]["name"] == f"collect_feedback.{task}"}


def versions(datasets: list[Event]) -> dict[tuple[str, str], str]:
    """By namespace and name, the version: a digest."""
    return {(one["namespace"], one["name"]): one["facets"]["version"]["datasetVersion"] for one in datasets}


def test_a_step_says_what_it_reads_when_it_starts(collected: tuple[Path, list[Event]]) -> None:
    lake, events = collected
    start = by_type(events, "build_datasets")["START"]
    read = ("file", f"{lake}/manifests/validate_triplets/key.json")
    assert versions(start["inputs"]) == {read: "d-validate_triplets"}
    assert start["outputs"] == []


def test_a_step_that_ended_says_what_it_made_and_how_many_rows(collected: tuple[Path, list[Event]]) -> None:
    lake, events = collected
    done = by_type(events, "validate_triplets")["COMPLETE"]
    assert versions(done["inputs"]) == {("file", f"{lake}/manifests/collect_triplets/key.json"): "d-collect_triplets"}
    assert versions(done["outputs"]) == {
        ("file", f"{lake}/manifests/validate_triplets/key.json"): "d-validate_triplets",
        ("file", f"{lake}/tables/valid"): "d-valid",
    }
    rows = {one["name"]: one["outputFacets"].get("outputStatistics", {}).get("rowCount") for one in done["outputs"]}
    assert rows == {f"{lake}/manifests/validate_triplets/key.json": None, f"{lake}/tables/valid": 7}


def test_what_a_step_reads_is_what_the_one_before_made(collected: tuple[Path, list[Event]]) -> None:
    """By name and version, which is how a collector joins jobs to a graph."""
    _, events = collected
    chain = ["collect_triplets", "validate_triplets", "build_datasets"]
    for before, after in pairwise(chain):
        made = versions(by_type(events, before)["COMPLETE"]["outputs"])
        read = versions(by_type(events, after)["COMPLETE"]["inputs"])
        assert read
        assert read.items() <= made.items()


def test_a_step_that_failed_says_what_it_read_and_made_nothing(collected: tuple[Path, list[Event]]) -> None:
    lake, events = collected
    failed = by_type(events, "build_datasets")["FAIL"]
    assert versions(failed["inputs"]) == {
        ("file", f"{lake}/manifests/validate_triplets/key.json"): "d-validate_triplets"
    }
    assert failed["outputs"] == []
