"""Report the status of a lake: rows landed and collected, drops by reason, and the lag."""

from collections import Counter

from pydantic import BaseModel, ConfigDict

from ratchet.collection.intents import read_intents
from ratchet.collection.records import CollectionRecord, is_done, total_flow
from ratchet.ingest.landing import EventType, landed
from ratchet.lake.schema import FEEDBACK, INTERACTIONS, TRIPLETS, Table
from ratchet.lake.tables import open_table
from ratchet.lineage import all_manifests
from ratchet.store import Store

TABLES = (INTERACTIONS, FEEDBACK, TRIPLETS)
STEPS_AFTER_COLLECT = ("validate_triplets", "build_datasets")


class Day(BaseModel):
    """The number of landing files of one day, and of those not collected yet."""

    files: int = 0
    waiting: int = 0


class TableStatus(BaseModel):
    rows: int
    files: int
    size_bytes: int
    version: int


class Status(BaseModel):
    model_config = ConfigDict(frozen=True)

    tables: dict[str, TableStatus]
    days: dict[str, dict[str, Day]]
    """By type of event and day."""
    collections: int
    uncollected_files: int
    newest_event_s: float | None
    """Unix seconds, among collected events."""
    lag_s: float | None
    """Seconds between that event and now."""
    waiting_feedback: int
    """Feedback whose interaction has not been collected yet."""
    refused_lines: int
    drops: dict[str, dict[str, int]]
    """By step and reason: all collections together, and the latest run of the steps after them."""


def status(store: Store, now_s: float) -> Status:
    planned = read_intents(store)
    done = [CollectionRecord.read(store, intent.number) for intent in planned if is_done(store, intent.number)]
    taken = {file for record in done for file in planned[record.number - 1].files}
    days = {"interaction": _days(store, "interaction", taken), "feedback": _days(store, "feedback", taken)}
    dropped = total_flow([flow for record in done for flow in (record.interactions, record.feedback)]).drops
    waiting = done[-1].feedback.drops.get("waiting_for_interaction", 0) if done else 0
    newest = done[-1].newest_s or None if done else None
    return Status(
        tables={table.key.rpartition("/")[2]: _table(store, table) for table in TABLES},
        days=days,
        collections=len(done),
        uncollected_files=sum(day.waiting for kind in days.values() for day in kind.values()),
        newest_event_s=newest,
        lag_s=None if newest is None else round(now_s - newest, 3),
        waiting_feedback=waiting,
        refused_lines=dropped.pop("malformed", 0),
        # Waiting feedback is not dropped, and each collection counts it again.
        drops={
            "collect_triplets": {name: num for name, num in dropped.items() if name != "waiting_for_interaction"},
            **_drops_after_collect(store),
        },
    )


def _days(store: Store, event_type: EventType, taken: set[str]) -> dict[str, Day]:
    files, waiting = Counter[str](), Counter[str]()
    for key in landed(store, event_type):
        day = key.split("/")[2].removeprefix("dt=")
        files[day] += 1
        waiting[day] += key not in taken
    return {day: Day(files=files[day], waiting=waiting[day]) for day in sorted(files)}


def _table(store: Store, table: Table) -> TableStatus:
    import polars as pl

    if not store.exists(f"{table.key}/_delta_log"):
        return TableStatus(rows=0, files=0, size_bytes=0, version=0)
    delta = open_table(store, table)
    files = pl.DataFrame(delta.get_add_actions(flatten=True))
    return TableStatus(
        rows=int(files["num_records"].sum()),
        files=files.height,
        size_bytes=int(files["size_bytes"].sum()),
        version=delta.version(),
    )


def _drops_after_collect(store: Store) -> dict[str, dict[str, int]]:
    latest = {manifest.step: manifest for manifest in all_manifests(store) if manifest.step in STEPS_AFTER_COLLECT}
    return {
        step: dict(sum((Counter(flow.drops) for flow in latest[step].flows.values()), Counter()))
        for step in STEPS_AFTER_COLLECT
        if step in latest
    }
