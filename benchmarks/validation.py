"""Triplets a second through validation and scrubbing, against Great Expectations' pandas engine on a sample.

Ours is the step's work on rows in memory: judge all by the compiled suite, scrub the good ones, explain the bad ones,
and write both as Parquet. 1% of the rows is broken, 5% holds personal data, as many hold something that only looks
personal. The peer judges only. The floor writes the same rows as they are. How well each detector
does is `python -m benchmarks detectors`.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

from benchmarks.planted import BROKEN, LIMITS, plant_broken, plant_personal, triplets
from ratchet.compute.parquet import write_parquet
from ratchet.privacy.scrub import scrub
from ratchet.validation.great_expectations import failed_rows
from ratchet.validation.slices import SLICE_ROWS as PART_ROWS
from ratchet.validation.suite import compile_rules, judge_rows, load_suite, view
from ratchet.validation.validate_part import process

NUM_ROWS = 1_000_000
PEER_ROWS = 50_000


def main(arguments: list[str]) -> None:
    """`python -m benchmarks validation --rows N`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks validation", description=__doc__)
    parser.add_argument("--rows", type=int, default=NUM_ROWS)
    for name, rate in run(parser.parse_args(arguments).rows).items():
        print(f"{name:<16} {rate:12,.0f} rows/s")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB, generator and table included"
    )


def run(num_rows: int = NUM_ROWS) -> dict[str, float]:
    """Rows a second of each arm; Great Expectations' import is not counted, nor is anything else done once."""
    clean, _ = plant_personal(triplets(num_rows), share=0.05)
    table, _ = plant_broken(clean, each=num_rows // 100 // len(BROKEN))
    failed_rows(view(table[:10].lazy()).collect(), load_suite(), LIMITS)  # imports it
    arms = {
        "judge and scrub": lambda: _ours(table),
        "judge alone": lambda: _judge(table),
        "GX, judge alone": lambda: _peer(table[:PEER_ROWS]),
        "write alone": lambda: _write(table),
    }
    return {name: (PEER_ROWS if name.startswith("GX") else len(table)) / _seconds(arm) for name, arm in arms.items()}


def _ours(table: pl.DataFrame) -> None:
    rules = compile_rules(table, LIMITS)
    with TemporaryDirectory() as folder:
        for number, rows in enumerate(table.iter_slices(PART_ROWS)):
            part = process(rows, rules, [scrub], PART_ROWS // 100)
            for name, found in (("good", part.good), ("bad", part.bad)):
                write_parquet(found, Path(folder) / f"{name}-{number}.parquet")


def _judge(table: pl.DataFrame) -> None:
    rules = compile_rules(table, LIMITS)
    for rows in table.iter_slices(PART_ROWS):
        judge_rows(rows, rules)


def _peer(table: pl.DataFrame) -> None:
    failed_rows(view(table.lazy()).collect(), load_suite(), LIMITS)


def _write(table: pl.DataFrame) -> None:
    with TemporaryDirectory() as folder:
        for number, rows in enumerate(table.iter_slices(PART_ROWS)):
            write_parquet(rows, Path(folder) / f"{number}.parquet")


def _seconds(arm: Callable[[], None]) -> float:
    start = time.perf_counter()
    arm()
    return time.perf_counter() - start
