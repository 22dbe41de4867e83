"""What the run view shows, drawn from manifests on kfp's own artifacts."""

import json
from pathlib import Path
from typing import Any

import pytest
from kfp import dsl

from ratchet.adapter_ref import AdapterRef
from ratchet.manifest import Artifact, Flow, Manifest
from ratchet.release.ledger import Ledger, LedgerEntry
from ratchet.store import Store
from ratchet_pipelines.kubeflow.drawing import SLICE, draw

DIGEST = "d" * 64
CHECK = {
    "name": "preference_accuracy", "verdict": "pass", "candidate": 0.7, "incumbent": 0.5, "difference": 0.2, "n": 158,
}  # fmt: skip


def manifest(step: str, output: str, **facts: Any) -> Manifest:
    return Manifest(
        step=step,
        key="k",
        inputs={},
        code_version="0",
        created_at=0,
        seconds=2.5,
        facts=facts,
        outputs={output: Artifact(uri=f"{output}/{DIGEST}", digest=DIGEST, rows=9)},
        flows={"triplets": Flow(rows_in=12, rows_out=9, drops={"duplicate": 3, "orphan": 0})},
    )


def drawn(kind: type[dsl.Artifact], name: str, of: Manifest, store: Store, folder: Path) -> dsl.Artifact:
    artifact = kind(name=name, uri=str(folder / name))
    draw(of, store, {name: artifact})
    return artifact


def test_an_output_is_pointed_at_and_its_uri_is_kept(lake: Store, tmp_path: Path) -> None:
    of = manifest("build_datasets", "dataset")
    dataset = drawn(dsl.Dataset, "dataset", of, lake, tmp_path)
    assert dataset.uri == str(tmp_path / "dataset"), "the launcher refuses a URI in another bucket"
    assert dataset.metadata == {
        "uri": f"{lake.root}/dataset/{DIGEST}",
        "digest": DIGEST,
        "rows": 9,
        "manifest": f"{lake.root}/{of.uri}",
        "manifest_digest": of.digest,
    }
    assert Manifest.model_validate_json(Path(dataset.path).read_text()) == of


def test_names_that_tenants_gave_themselves_are_text(lake: Store, tmp_path: Path) -> None:
    hostile = "<img src=x onerror=alert(1)> | [link](http://evil) `a`"
    part = dict.fromkeys(SLICE, 0.5) | {SLICE[0]: hostile}
    of = manifest("evaluate_adapter", "x", why=hostile, slices=[part], checks=[])
    text = Path(drawn(dsl.Markdown, "summary", of, lake, tmp_path).path).read_text()
    assert "<img" not in text
    assert "[link](" not in text
    row = next(line for line in text.splitlines() if line.startswith("| &lt;img"))
    assert row.replace("\\|", "").count("|") == len(SLICE) + 1


def test_metrics_are_sizes_last_losses_and_both_sides_of_each_check(lake: Store, tmp_path: Path) -> None:
    history = [{"phase": "sft", "loss": 2.0}, {"phase": "sft", "loss": 1.0}]
    of = manifest("any", "x", sizes={"sft": {"train": 7}}, history=history, checks=[CHECK], sft_rows=3)
    metrics = drawn(dsl.Metrics, "metrics", of, lake, tmp_path).metadata
    assert metrics == {
        "sft.train": 7,
        "sft_rows": 3,
        "sft_last_loss": 1.0,
        "seconds": 2.5,
        "preference_accuracy.candidate": 0.7,
        "preference_accuracy.incumbent": 0.5,
    }


def test_summary_says_the_end_the_reason_and_every_drop(lake: Store, tmp_path: Path) -> None:
    part = {"kind": "language", "value": "de", "candidate": 0.4, "incumbent": 0.6, "difference": -0.2, "n": 40}
    of = manifest(
        "evaluate_adapter",
        "verdict",
        verdict="fail",
        why="1 check failed",
        checks=[CHECK],
        slices=[{**part, "is_worse": True}],
    )
    text = Path(drawn(dsl.Markdown, "summary", of, lake, tmp_path).path).read_text()
    assert text.startswith("**evaluate_adapter**: fail: 1 check failed\n")
    assert "| dropped: duplicate | 3 |" in text
    assert "orphan" not in text
    assert "| preference_accuracy | pass | 0.7 | 0.5 | 0.2 | 158 |" in text
    assert "| language | de | 0.4 | 0.6 | -0.2 | 40 | True |" in text


@pytest.mark.parametrize("step", ["build_datasets", "evaluate_adapter"])
def test_report_shows_this_run_alone(lake: Store, tmp_path: Path, step: str) -> None:
    of, other = manifest(step, "dataset"), manifest("train_adapter", "adapter")
    for one in (of, other):
        lake.create(one.uri, one.model_dump_json().encode())
    html = Path(drawn(dsl.HTML, "report", of, lake, tmp_path).path).read_text()
    assert "This run" in html
    assert "adapter/" not in html


def test_verdicts_set_the_offline_verdict_against_the_canarys_end(lake: Store, tmp_path: Path) -> None:
    of = manifest("release_adapter", "release")
    for event, verdict in [("promoted", "pass"), ("promoted", "pass"), ("rolled_back", "pass"), ("refused", "fail")]:
        adapter = AdapterRef(name="adapter", version="1", uri="s3://lake/a", digest=DIGEST)
        entry = LedgerEntry(event=event, at=0, who="test", adapter=adapter, verdict=verdict)  # type: ignore[arg-type]
        Ledger(lake).append(lambda records, entry=entry: entry)  # type: ignore[misc]
    restored = entry.model_copy(update={"event": "promoted", "verdict": "pass", "restores": True})  # had no canary
    Ledger(lake).append(lambda records: restored)
    verdicts = drawn(dsl.ClassificationMetrics, "verdicts", of, lake, tmp_path)
    assert [row["row"] for row in verdicts.metadata["confusionMatrix"]["rows"]] == [[2, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_verdicts_show_nothing_before_the_first_canary_has_ended(lake: Store, tmp_path: Path) -> None:
    verdicts = drawn(dsl.ClassificationMetrics, "verdicts", manifest("evaluate_adapter", "verdict"), lake, tmp_path)
    assert verdicts.metadata == {}
    assert json.loads(Path(verdicts.path).read_text())["categories"] == ["pass", "fail", "insufficient"]
