"""Making the parts that are not there yet: which there are to be, and who makes them.

On one machine the table is read once, rows are set aside by part, and processes take a part each. Several machines
take every n-th part each (`share`), and read for themselves.
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
from ratchet.validation.part_store import Planned, are_done, write_part
from ratchet.validation.slices import SLICE_ROWS, TripletSetRef, TripletSlice
from ratchet.validation.suite import KEY, compile_rules
from ratchet.validation.validate_part import process

PROCESS_ROWS = 400_000  # for each process: it imports for more than a CPU second, and makes 100,000 rows in one
PART_ROWS = 6_000  # a part costs what so many rows cost, however few are in it


@dataclass(frozen=True)
class _Task:
    """A part to make, and where its rows were set aside; goes to another process."""

    store: Store
    planned: Planned
    rows: Spill
    bucket: int


def plan(store: Store, named: TripletSetRef, settings: ValidateTriplets) -> list[Planned]:
    """All parts of the triplets, in an order that lasts. Raises UserError if the table no longer holds them."""
    collections = slices.collections_of(store, named)
    repeated = slices.repeated_ids(store, named, collections)
    return [
        Planned(one, settings, _within(one, repeated.get(one.collection.number, ())))
        for one in slices.slices(collections, SLICE_ROWS)
    ]


def make(store: Store, parts: Sequence[Planned]) -> int:
    """Make those of the parts that are not done; how many they were."""
    done = are_done(store)
    missing = list({one.key: one for one in parts if one.key not in done}.values())
    if missing:
        _make_all(store, missing)
    return len(missing)


def _make_all(store: Store, missing: Sequence[Planned]) -> None:
    ahead = partial(import_module, __name__)  # a new process imports while this one still partitions the rows
    with (
        tempfile.TemporaryDirectory(prefix="ratchet-parts-") as folder,
        ProcessPool(_num_processes(missing), pl.thread_pool_size(), initializer=ahead) as processes,
    ):
        rows = slices.partition_to_disk(store, [one.slice for one in missing], Path(folder) / "slices")
        processes.for_each(_make, [_Task(store, one, rows, bucket) for bucket, one in enumerate(missing)])


def _num_processes(missing: Sequence[Planned]) -> int:
    cost = sum(PART_ROWS + one.slice.collection.content.num_rows // one.slice.of for one in missing)
    return min(pl.thread_pool_size(), len(missing), cost // PROCESS_ROWS)


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


def _within(one: TripletSlice, ids: Collection[str]) -> tuple[str, ...]:
    """Those of the ids that fall to the slice."""
    if not ids:
        return ()
    found = pl.DataFrame({KEY: sorted(ids)}, {KEY: pl.String})
    return tuple(found.filter(slices.slice_numbers(pl.lit(one.of)) == one.number)[KEY])
