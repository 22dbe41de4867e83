"""Every format's sample, written from its documentation, lands exactly the events of its golden file."""

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from ratchet.ingest.importers import IMPORTERS, Imported, Terms, import_files
from ratchet.ingest.importers.scores import parse_rules
from ratchet.ingest.landing import landed, lines
from ratchet.store import Store

HERE = Path(__file__).parent / "importers"
SAMPLES, GOLDEN = HERE / "samples", HERE / "golden"
TERMS = Terms(
    scores=parse_rules(
        [
            "helpful=thumb", "quality=0..10", "thumb=thumb", "helpfulness=0..1", "tone=rude/kind",
            "hallucination=true/false", "user_score=thumb", "correctness=wrong/correct", "style=stiff/fluent",
            "verdict=fail/pass", "Relevance=1..5", "relevance=0..1",
        ]
    )
)  # fmt: skip


def sample(name: str, store: Store, terms: Terms = TERMS) -> Imported:
    [file] = [path for path in SAMPLES.glob(f"{name}.*")]
    return import_files(store, name, [file], list(SAMPLES.glob(f"{name}-traces.*")), terms)


def told(store: Store, imported: Imported) -> dict[str, Any]:
    """What an import did, to read in a diff: its events without what is not set, and what it refused."""
    found = {
        unit: [
            {name: value for name, value in json.loads(line).items() if value not in (None, {}, [], False, 0.0)}
            for key in landed(store, unit)
            for _, line in lines(store, key)
        ]
        for unit in ("interaction", "feedback")
    }
    refused = [json.loads(line) for key in imported.quarantined for line in store.read(key).splitlines()]
    return {
        **imported.model_dump(exclude={"quarantined"}),
        **found,
        "refused": [
            {
                "file": one["file"],
                "offset": one["offset"],
                "why": one["why"],
                "bytes": len(base64.b64decode(one["bytes"])),
            }
            for one in refused
        ],
    }


@pytest.mark.parametrize("name", sorted(IMPORTERS))
def test_a_sample_lands_the_golden_events(lake: Store, name: str):
    made = json.dumps(told(lake, sample(name, lake)), indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    golden = GOLDEN / f"{name}.json"
    if os.environ.get("REGENERATE_GOLDEN") == "1":
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(made, encoding="utf-8")
    assert made == golden.read_text(encoding="utf-8"), "run once with REGENERATE_GOLDEN=1 and review the difference"


def test_feedback_finds_its_answer(lake: Store):
    for name in IMPORTERS:
        sample(name, lake)
    served, judged = (
        {json.loads(line)["interaction_id"] for key in landed(lake, unit) for _, line in lines(lake, key)}
        for unit in ("interaction", "feedback")
    )
    assert judged - served == {"mlflow:tr-2"}  # its trace holds no text
