"""Every detector against what was planted, its precision and recall: `python -m benchmarks detectors --rows N`.

Events that come twice, late or to no answer (collect); personal data of fifteen kinds and rows broken in twenty-five
ways (validate); adversarial raters, brigades, duplicates, near-duplicates, contradictions (build).
"""

import argparse
import tempfile

from benchmarks.crowd import crowd
from benchmarks.datasets import detectors
from benchmarks.planted import (
    BROKEN,
    LIMITS,
    Score,
    plant_broken,
    plant_personal,
    score_broken,
    score_personal,
    triplets,
)
from benchmarks.planted_events import collect_twice, plant
from ratchet.privacy.scrub import scrub
from ratchet.privacy.scrub_triplets import scrub_triplets
from ratchet.store import open_store
from ratchet.validation.suite import compile_rules
from ratchet.validation.validate_part import process

NUM_ROWS = 100_000


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks detectors", description=__doc__)
    parser.add_argument("--rows", type=int, default=NUM_ROWS, help="votes, and as many triplets")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=STEPS)
    given = parser.parse_args(arguments)
    for step in given.steps:
        STEPS[step](given.rows)


def _collect(num_rows: int) -> None:
    with tempfile.TemporaryDirectory(prefix="ratchet-bench-") as folder:
        tell(f"collect, {num_rows:,} votes", collect_twice(open_store(folder), plant(num_rows)))


def _scrub(num_rows: int) -> None:
    table, secrets = plant_personal(triplets(num_rows), share=0.05)
    tell(f"scrub, {num_rows:,} triplets", score_personal(scrub_triplets(table)[0], secrets))


def _validate(num_rows: int) -> None:
    table, broken = plant_broken(triplets(num_rows), each=num_rows // 100 // len(BROKEN))
    part = process(table, compile_rules(table, LIMITS), [scrub], 0)
    tell(f"validate, {num_rows:,} triplets", score_broken(part.bad, broken))


def _build(num_rows: int) -> None:
    made = crowd(num_rows)
    print(f"build, {len(made.triplets):,} votes of a crowd\n  {'planted':<28}    number  precision  recall")
    for reason, (precision, recall) in detectors(made).items():
        number = made.planted.filter(reason=reason).height
        print(f"  {reason:<28} {number:>9,} {precision:10.4f} {recall:7.4f}")


STEPS = {"collect": _collect, "scrub": _scrub, "validate": _validate, "build": _build}


def tell(title: str, scores: dict[str, Score]) -> None:
    print(f"{title}\n  {'planted':<28}    number  precision  recall")
    for name, score in scores.items():
        print(f"  {name:<28} {score.planted:>9,} {score.precision:10.4f} {score.recall:7.4f}", flush=True)
