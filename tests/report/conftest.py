"""One promoted run and one rolled back, as their manifests tell them."""

import math
from typing import Any

import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.manifest import Artifact, Flow, Manifest
from ratchet.release.ledger import LedgerRecord
from ratchet.report.report import Act

SPITE = "<script>alert('voted')</script> & \"quoted\""


def manifest(
    step: str, output: str, flows: dict[str, Flow] | None = None, facts: dict[str, Any] | None = None
) -> Manifest:
    digest = f"{step:*<64}".replace("*", "a")
    return Manifest(
        step=step,
        key=step,
        inputs={},
        code_version="0",
        created_at=0,
        seconds=1,
        flows=flows or {},
        facts=facts or {},
        outputs={output: Artifact(uri=f"{output}/{digest}", digest=digest)},
    )


def check(
    name: str, verdict: str, candidate: float, incumbent: float, half: float | None, **more: Any
) -> dict[str, Any]:
    difference = candidate - incumbent
    return {
        "name": name,
        "verdict": verdict,
        "candidate": candidate,
        "incumbent": incumbent,
        "difference": difference,
        "low": None if half is None else difference - half,
        "high": None if half is None else difference + half,
        "threshold": -0.01,
        "n": 158,
        "n_needed": None,
        "required": True,
        "why": f"{name} was weighed",
        **more,
    }


def timeline(rate: float, harm: float, non_inferiority: float, last: str) -> list[dict[str, Any]]:
    rows = []
    for t in range(40):
        primary, canary = 4 * t, t + 1
        rows.append(
            {
                "t": 2.0 * t,
                "phase": "Initializing" if t < 2 else last if t > 36 else "Progressing",
                "weight": 0 if t < 2 or t > 36 else min(50, 10 * (t // 6)),
                "failed_checks": 0,
                "votes": {
                    "primary": {"n": primary, "up": round(0.6 * primary)},
                    "canary": {"n": canary, "up": round(rate * canary)},
                }
                if t
                else {},
                "log_e": {
                    "harm": harm * t + 0.2 * math.sin(t),
                    "non_inferiority": non_inferiority * t + 0.2 * math.cos(t),
                },
            }
        )
    return rows


def history() -> list[dict[str, Any]]:
    sft = [
        {"phase": "sft", "step": n, "loss": 2.1 * math.exp(-n / 30) + 0.9 + 0.1 * math.sin(7 * n)} for n in range(30)
    ]
    dpo = [{"phase": "dpo", "step": n, "loss": 0.69 - 0.008 * n + 0.03 * math.sin(9 * n)} for n in range(40)]
    return sft + dpo


def evaluation() -> dict[str, Any]:
    answers = [("Capital of France?", "France has many cities.", "Paris."), (SPITE, SPITE, "No.")]
    answers += [(f"Question {n}?", "Before.", "After.") for n in range(3)]
    return {
        "verdict": "pass",
        "why": "all 4 required checks passed",
        "checks": [
            check("preference_accuracy", "pass", 0.69, 0.52, 0.08),
            check("preference_margin", "pass", 0.21, 0.03, 0.06, required=False),
            check("perplexity", "insufficient", 12.9, 11.8, 1.4, threshold=0.2, n=28, n_needed=96),
            check("safety", "fail", 0.31, 0.25, 0.1, n=16, is_alarm=True, base=0.3),
        ],
        "slices": [
            {
                "kind": "language",
                "value": value,
                "n": 40,
                "candidate": 0.4,
                "incumbent": 0.6,
                "difference": -0.2,
                "low": low,
                "high": low and 0.0,
                "p": low and 0.01,
                "is_worse": low is not None,
            }
            for value, low in (("de", -0.4), ("fr", None))
        ],
        "judge": {
            "style": "openai",
            "model": "a-judge",
            "is_weak": False,
            "cost": {"requests": 12, "found": 300, "tokens": 4000, "usd": 0.1},
            "calibration": {
                "n": 90,
                "agreement": 0.8,
                "kappa": 0.6,
                "kappa_low": 0.5,
                "flip_rate": 0.05,
                "confusion": [[40, 4, 4], [0, 0, 0], [6, 4, 32]],
            },
        },
        "samples": [{"prompt": asked, "incumbent": old, "candidate": new} for asked, old, new in answers],
    }


def run(outcome: str, why: str, rate: float, harm: float, non_inferiority: float) -> list[Manifest]:
    collected = {
        "interactions": Flow(rows_in=1240, rows_out=1236, drops={"duplicate": 3, "malformed": 1}),
        "feedback": Flow(rows_in=1020, rows_out=1001, drops={"duplicate": 11, "waiting_for_interaction": 8}),
    }
    valid = {"triplets": Flow(rows_in=1001, rows_out=987, drops={"rating_in_range": 14})}
    built = {"triplets": Flow(rows_in=987, rows_out=801, drops={"superseded": 97, "contradictory": 61, "tie": 28})}
    judged = {"pairs": Flow(rows_in=158, rows_out=157, drops={"too_long": 1})}
    sizes = {"sft-train": 212, "sft-eval": 46, "dpo-train": 642, "dpo-eval": 158, "kto-train": 301, "kto-eval": 70}
    released = {
        "outcome": outcome,
        "why": why,
        "version": "2",
        "digest": "d" * 64,
        "baseline_digest": "base",
        "bound": math.log(20),
        "log": [{"t": 0.0, "text": "canary: Initializing"}, {"t": 78.2, "text": SPITE}],
        "timeline": timeline(rate, harm, non_inferiority, "Succeeded" if outcome == "promoted" else "Failed"),
    }
    return [
        manifest("collect_triplets", "triplets", collected),
        manifest("validate_triplets", "valid", valid),
        manifest("build_datasets", "dataset", built, {"sizes": sizes}),
        manifest("train_adapter", "adapter", {}, {"history": history(), "sft_rows": 212, "dpo_pairs": 642}),
        manifest("evaluate_adapter", "verdict", judged, evaluation()),
        manifest("register_adapter", "version"),
        manifest("release_adapter", "release", {}, released),
    ]


@pytest.fixture(scope="module")
def acts() -> list[Act]:
    return [
        Act("Act one: a better adapter", run("promoted", "no worse by 10 points or more", 0.75, -0.05, 0.09)),
        Act("Act two: a sabotaged adapter", run("rolled_back", "the votes show harm", 0.2, 0.1, -0.06)),
    ]


@pytest.fixture(scope="module")
def ledger() -> list[LedgerRecord]:
    ref = AdapterRef(name="adapter", version="2", uri="adapters/d", digest="d" * 64)
    common: dict[str, Any] = {"who": "release_adapter", "adapter": ref, "baseline": AdapterRef(), "verdict": "pass"}
    return [
        LedgerRecord(seq=1, event="requested", at=1.7e9, commit="c0ffee1234", attempt=1, **common),
        LedgerRecord(seq=2, event="promoted", at=1.7e9 + 84, why="no worse", attempt=1, **common),
        LedgerRecord(seq=3, event="rolled_back", at=1.7e9 + 900, why=SPITE, forced=True, attempt=1, **common),
    ]
