"""Our arm of the data benchmark: collect, validate and build, as `ratchet run` does; then one more day, collected."""

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.data_cost import cost
from benchmarks.generated_votes import land_generated
from ratchet.config import Config
from ratchet.manifest import Manifest
from ratchet.step import run_step
from ratchet.store import open_store
from ratchet_pipelines.graph import STEPS

LATER_SHARE = 20  # one part in so many arrives later


def main(lake: Path, until: str) -> dict[str, Any]:
    stages: dict[str, dict[str, float]] = {}
    done: dict[str, Manifest] = {}
    store = open_store(lake)
    with cost(stages, "all"):
        for step in STEPS[: [step.name for step in STEPS].index(until) + 1]:
            inputs = {name: done[name] for name in step.inputs}
            with cost(stages, step.name):
                done[step.name] = run_step(step, Config(), inputs, store).manifest
    whole = stages.pop("all")
    rows = sum(flow.rows_in for flow in done["collect_triplets"].flows.values())
    new_rows = land_generated(store, rows // LATER_SHARE, seed=1)
    with cost(stages, f"{new_rows:,} more"):
        run_step(STEPS[0], Config(), {}, store)
    return {"rows": rows, **whole, "stages": stages}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), sys.argv[2])))
