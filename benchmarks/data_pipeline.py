"""Our arm of the data benchmark: collect, validate and build, as `ratchet run` does; then a day, to validation."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.data_cost import cost
from benchmarks.generated_votes import land_generated
from ratchet.config import Config
from ratchet.manifest import Manifest
from ratchet.step import Step, run_step
from ratchet.store import Store, open_store
from ratchet_pipelines.graph import STEPS

LATER_SHARE = 20  # one part in so many arrives later


def main(lake: Path, until: str) -> dict[str, Any]:
    stages: dict[str, dict[str, float]] = {}
    done: dict[str, Manifest] = {}
    store = open_store(lake)
    with cost(stages, "all"):
        for step in STEPS[: [step.name for step in STEPS].index(until) + 1]:
            with cost(stages, step.name):
                done[step.name] = _run(step, done, store)
    whole = stages.pop("all")
    rows = sum(flow.rows_in for flow in done["collect_triplets"].flows.values())
    new_rows = land_generated(store, rows // LATER_SHARE, seed=1)
    for step in STEPS[: min(len(done), 2)]:
        with cost(stages, f"{step.name}, {new_rows:,} more"):
            done[step.name] = _run(step, done, store)
    return {"rows": rows, **whole, "stages": stages}


def _run(step: Step, done: Mapping[str, Manifest], store: Store) -> Manifest:
    return run_step(step, Config(), {name: done[name] for name in step.inputs}, store).manifest


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
