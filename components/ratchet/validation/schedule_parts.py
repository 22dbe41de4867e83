"""Plan the parts of the triplets and make the missing ones, on a pool of processes.

On one machine the table is read once, its rows are spilled by part, and each process takes one part at a time. Several
machines take every n-th part each (`share`), and read the table themselves.
"""

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib import import_module
from pathlib import Path

import polars as pl

from ratchet.compute.process_pool import ProcessPool
from ratchet.compute.spill import Spill
from ratchet.config import ValidateTriplets
from ratchet.lake.fingerprint import Fingerprint
from ratchet.privacy.scrub import Tier, scrub
from ratchet.store import Store
from ratchet.validation import slices
from ratchet.validation.part_store import PlannedPart, done_keys, write_part
from ratchet.validation.slices import SLICE_ROWS, TripletSetRef, TripletSlice
from ratchet.validation.suite import KEY, compile_rules
from ratchet.validation.validate_part import process

PROCESS_ROWS = 400_000  # for each process: its imports take over a CPU second, 100,000 rows one
PART_ROWS = 6_000  # the fixed cost of a part, in rows


@dataclass(frozen=True)
class _Task:
    """A part to make, and the bucket of its spilled rows; sent to another process."""

    store: Store
    planned: PlannedPart
    rows: Spill
    bucket: int


def plan(store: Store, named: TripletSetRef, settings: ValidateTriplets) -> list[PlannedPart]:
    """Return all parts of the triplets, in a stable order. Raises UserError if the table no longer holds them."""
    collections = slices.collections_of(store, named)
    repeated = slices.repeated_ids(store, named, collections)
    return [
        PlannedPart(part, settings, _within(part, repeated.get(part.collection.number, ())))
        for part in slices.slices(collections, SLICE_ROWS)
    ]


def make(store: Store, parts: Sequence[PlannedPart]) -> int:
    """Make those of the parts that are not done; return how many."""
    done = done_keys(store)
    missing = list({part.key: part for part in parts if part.key not in done}.values())
    if missing:
        _make_all(store, missing)
    return len(missing)


def _make_all(store: Store, missing: Sequence[PlannedPart]) -> None:
    cost = sum(PART_ROWS + part.slice.collection.content.num_rows // part.slice.of for part in missing)
    num_processes = min(pl.thread_pool_size(), len(missing), cost // PROCESS_ROWS)
    ahead = partial(import_module, __name__)  # a new process imports while this one still partitions the rows
    with (
        tempfile.TemporaryDirectory(prefix="ratchet-parts-") as folder,
        ProcessPool(num_processes, pl.thread_pool_size(), initializer=ahead) as processes,
    ):
        rows = slices.partition_to_disk(store, [part.slice for part in missing], Path(folder) / "slices")
        processes.for_each(_make, [_Task(store, part, rows, bucket) for bucket, part in enumerate(missing)])


def _make(task: _Task) -> None:
    settings = task.planned.settings
    rows = task.rows.read(task.bucket).sort(KEY)
    rules = compile_rules(rows.clear(), settings.limits, task.planned.repeated)
    part = process(rows, rules, _tiers(settings.entity_model), settings.parity_rows)
    write_part(task.store, task.planned, part, Fingerprint.of(rows))


@cache
def _tiers(entity_model: str | None) -> tuple[Tier, ...]:
    from ratchet.privacy.named_entities import entity_tier

    return (scrub, entity_tier(entity_model)) if entity_model else (scrub,)


def _within(part: TripletSlice, ids: Collection[str]) -> tuple[str, ...]:
    """Return those of the ids that belong to the slice."""
    if not ids:
        return ()
    candidates = pl.DataFrame({KEY: sorted(ids)}, {KEY: pl.String})
    return tuple(candidates.filter(slices.slice_numbers(pl.lit(part.of)) == part.number)[KEY])
