"""Land events: write them to `events/{interaction,feedback}/dt=YYYY-MM-DD/`, in create-only files that never change.

Producers that see one event at a time write JSON lines (`land`); those that have millions write Parquet
(`ratchet.ingest.bulk`).
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Literal

from ratchet.digest import digest_bytes
from ratchet.events import Feedback, Interaction
from ratchet.store import Store

EventType = Literal["interaction", "feedback"]
ROOT = "events"
SUFFIXES = (".jsonl", ".parquet")
UNTIMED = "x"  # sorts after every time


def land(store: Store, events: Iterable[Interaction | Feedback], name: str = UNTIMED) -> list[str]:
    """Write events durably; return their files' keys. Returns when every event is stored, or raises.

    Files are named by their content, after `name`: the same events land once under the same name. The gate finds new
    files by the order of their names (`after`), so give a `batch_name` or a name that sorts after all of those.
    """
    lines_by_folder: dict[str, list[bytes]] = defaultdict(list)
    for event in events:
        line = event.model_dump_json(exclude_defaults=False).encode() + b"\n"
        if isinstance(event, Interaction):
            kind, moment = "interaction", event.served_at
        else:
            kind, moment = "feedback", event.created_at
        lines_by_folder[f"{ROOT}/{kind}/dt={_day(moment)}"].append(line)
    keys = []
    for folder, folder_lines in sorted(lines_by_folder.items()):
        data = b"".join(folder_lines)
        key = f"{folder}/{name}-{digest_bytes(data)[:32]}.jsonl"
        store.create_if_absent(key, data)
        keys.append(key)
    return keys


def batch_name(writer: str) -> str:
    """Return a unique name for one writer's next batch; names sort by time."""
    return f"{_time_name(time.time_ns())}-{writer}"


def after(folder: str, seconds: float) -> str:
    """Return the key after which a folder lists files named at `seconds` (Unix) or later, and those without a time."""
    return f"{folder}/{_time_name(int(seconds * 1e9))}"


def landed(store: Store, event_type: EventType) -> list[str]:
    """Return the keys of all landing files of one type, sorted."""
    return [key for key in store.list(f"{ROOT}/{event_type}") if key.endswith(SUFFIXES)]


def lines(store: Store, key: str) -> Iterator[tuple[int, bytes]]:
    """Yield each line of a JSON lines file with its byte offset; blank lines are skipped."""
    offset = 0
    for line in store.read(key).splitlines(keepends=True):
        if line.strip():
            yield offset, line
        offset += len(line)


def _time_name(nanoseconds: int) -> str:
    return f"{nanoseconds:020d}"


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (OSError, OverflowError, ValueError):  # a broken clock: the event still lands, and validation names it
        return "unknown"
