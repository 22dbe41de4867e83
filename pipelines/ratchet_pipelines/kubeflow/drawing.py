"""Draw Kubeflow's run view from a manifest: pointers, metrics, Markdown, HTML, a confusion matrix.

An artifact never holds data, and its URI stays as Kubeflow made it: the launcher uploads the file at the path and
refuses a URI in another bucket. So the file repeats the metadata, and the lake's address is metadata.
"""

import json
from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.lineage import all_manifests, ancestry
from ratchet.manifest import Manifest
from ratchet.release.ledger import read_ledger
from ratchet.report.report import Act, write_report
from ratchet.store import Store

if TYPE_CHECKING:
    from kfp.dsl import HTML, Artifact, ClassificationMetrics, Markdown, Metrics

VERDICTS = ("pass", "fail", "insufficient")
CHECK = ("name", "verdict", "candidate", "incumbent", "difference", "n")
SLICE = ("kind", "value", "candidate", "incumbent", "difference", "n", "is_worse")
CANARY_VERDICT = {"promoted": "pass", "rolled_back": "fail"}


def draw(manifest: Manifest, store: Store, artifacts: Mapping[str, "Artifact"]) -> None:
    """Fill in artifacts by their names: one of the manifest's outputs, or one of DRAWN."""
    for name, artifact in artifacts.items():
        if name in manifest.outputs:
            point(artifact, manifest, name, store)
        else:
            DRAWN[name](artifact, manifest, store)


def point(artifact: "Artifact", manifest: Manifest, output: str, store: Store) -> None:
    """Name an output by place and digest."""
    made = manifest.outputs[output]
    artifact.metadata |= made.model_dump(exclude_none=True) | {
        "uri": f"{store.root}/{made.uri}",
        "manifest": f"{store.root}/{manifest.uri}",
        "manifest_digest": manifest.digest,
    }
    _write(artifact, manifest.model_dump_json(indent=1))


def draw_metrics(artifact: "Metrics", manifest: Manifest, store: Store) -> None:
    numbers = dict(_numbers(manifest))
    for name, value in numbers.items():
        artifact.log_metric(name, value)
    _write(artifact, json.dumps(numbers, indent=1))


def draw_summary(artifact: "Markdown", manifest: Manifest, store: Store) -> None:
    """Write the outcome and its reason, the rows by drop reason, the checks, and the outputs."""
    facts = manifest.facts
    end = facts.get("outcome") or facts.get("verdict") or "done"
    why = f": {_plain(facts['why'])}" if facts.get("why") else ""
    flows: list[list[Any]] = []
    for unit, flow in manifest.flows.items():
        drops = [[f"dropped: {reason}", count] for reason, count in sorted(flow.drops.items()) if count]
        flows += [[f"{unit} in", flow.rows_in], *drops, [f"{unit} out", flow.rows_out]]
    checks = [[check[name] for name in CHECK] for check in facts.get("checks", [])]
    slices = [[part[name] for name in SLICE] for part in facts.get("slices", [])]
    made = [[name, artifact.digest[:12], artifact.rows] for name, artifact in manifest.outputs.items()]
    tables = [
        _table(("rows", "number"), flows),
        _table(CHECK, checks),
        _table(SLICE, slices),
        _table(("made", "digest", "rows"), made),
    ]
    _write(artifact, "\n\n".join([f"**{manifest.step}**: {end}{why}", *filter(None, tables)]) + "\n")


def draw_report(artifact: "HTML", manifest: Manifest, store: Store) -> None:
    """Write the HTML report on this run alone: the manifest and its ancestors."""
    run = Act("This run", ancestry(manifest, all_manifests(store)))
    write_report([run], read_ledger(store), Path(artifact.path))


def draw_verdicts(artifact: "ClassificationMetrics", manifest: Manifest, store: Store) -> None:
    """Compare offline verdicts with canaries: rows are the canary's outcome, columns the offline verdict."""
    ends = [record for record in read_ledger(store) if record.event in CANARY_VERDICT]
    matrix = [
        [sum(CANARY_VERDICT[end.event] == actual and end.verdict == offline for end in ends) for offline in VERDICTS]
        for actual in VERDICTS
    ]
    if ends:  # nothing to show before the first canary has ended
        artifact.log_confusion_matrix(list(VERDICTS), matrix)
    _write(artifact, json.dumps({"categories": VERDICTS, "canary_by_offline": matrix}))


DRAWN = {
    "metrics": draw_metrics,
    "summary": draw_summary,
    "report": draw_report,
    "verdicts": draw_verdicts,
}


def _table(head: tuple[str, ...], rows: list[list[Any]]) -> str:
    """A Markdown table; nothing without rows."""
    lines = [head, ["---"] * len(head), *rows] if rows else []
    return "\n".join(f"| {' | '.join('' if cell is None else _plain(str(cell)) for cell in line)} |" for line in lines)


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is: tenants name themselves, and views render HTML."""
    return escape(" ".join(text.split())).translate({ord(sign): f"\\{sign}" for sign in "|`[]"})


def _numbers(manifest: Manifest) -> Iterator[tuple[str, float]]:
    """Yield sizes of datasets, the last loss of each phase and both sides of each check, where the facts have them."""
    facts = manifest.facts
    yield from _flat(facts.get("sizes", {}))
    yield from ((name, facts[name]) for name in ("sft_rows", "dpo_pairs", "tokens") if name in facts)
    for row in facts.get("history", []):
        yield f"{row['phase']}_last_loss", row["loss"]  # later rows overwrite: a dict keeps the last
    for check in facts.get("checks", []):
        yield from ((f"{check['name']}.{side}", check[side]) for side in ("candidate", "incumbent"))
    yield "seconds", manifest.seconds


def _flat(numbers: Any, prefix: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(numbers, dict):
        for name, value in numbers.items():
            yield from _flat(value, f"{prefix}.{name}" if prefix else name)
    elif isinstance(numbers, int | float):
        yield prefix, numbers


def _write(artifact: "Artifact", text: str) -> None:
    Path(artifact.path).write_text(text, encoding="utf-8")
