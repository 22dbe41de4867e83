"""Write a step's result for the orchestrator that ran it: a few small files with names and digests, never data."""

import json
from pathlib import Path
from typing import Any

from ratchet.step import StepResult


def decision(ran: StepResult) -> str:
    """Return the word that later steps branch on: a release's outcome, else a verdict, else `done`."""
    facts = ran.manifest.facts
    return str(facts.get("outcome") or facts.get("verdict") or "done")


def result(ran: StepResult) -> dict[str, Any]:
    """Return a step's result as one small JSON object, for an Airflow XCom."""
    manifest = ran.manifest
    return {
        "step": manifest.step,
        "uri": manifest.uri,
        "digest": manifest.digest,
        "decision": decision(ran),
        "why": str(manifest.facts.get("why") or ""),
        "checks": manifest.facts.get("checks", []),
        "did_work": ran.is_new,
        "seconds": manifest.seconds,
        "outputs": {name: artifact.model_dump() for name, artifact in manifest.outputs.items()},
        "flows": {unit: flow.model_dump() for unit, flow in manifest.flows.items()},
    }


def write_result(ran: StepResult, folder: Path) -> None:
    """Write the result into the folder that an orchestrator reads.

    `return.json` is the name that Airflow's sidecar reads (`--out /airflow/xcom`); `uri` and `decision`
    are plain text for Argo, whose conditions read whole files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "manifest.json").write_text(ran.manifest.model_dump_json(indent=1), encoding="utf-8")
    (folder / "return.json").write_text(json.dumps(result(ran)), encoding="utf-8")
    (folder / "uri").write_text(ran.manifest.uri, encoding="utf-8")
    (folder / "decision").write_text(decision(ran), encoding="utf-8")
