"""Landing: `events/{interaction,feedback}/dt=YYYY-MM-DD/`, files written create-only and never changed.

Producers that see an event at a time write JSON lines; who has them by the million writes Parquet (`lake.bulk`).
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
UNTIMED = "x"  # sorts behind every time


def land(store: Store, events: Iterable[Interaction | Feedback], name: str = UNTIMED) -> list[str]:
    """Write events durably; their keys. Returns only when every event is safe, or raises with none acknowledged.

    Files are named by what they hold, after `name`: landing the same events under the same name again writes nothing
    twice. A name is a `batch_name`, or sorts behind all of them, or the gate finds the file only later; see `after`.
    """
    by_place: dict[str, list[bytes]] = defaultdict(list)
    for event in events:
        line = event.model_dump_json(exclude_defaults=False).encode() + b"\n"
        by_place[_folder(event)].append(line)
    keys = []
    for folder, lines in sorted(by_place.items()):
        data = b"".join(lines)
        key = f"{folder}/{name}-{digest_bytes(data)[:32]}.jsonl"
        store.create_if_absent(key, data)
        keys.append(key)
    return keys


def batch_name(writer: str) -> str:
    """A name for one writer's next batch: sorts by time, never the same twice."""
    return f"{_name_of(time.time_ns())}-{writer}"


def after(folder: str, seconds: float) -> str:
    """The key behind which a folder's files are that writers have named since then, and those not named by time."""
    return f"{folder}/{_name_of(int(seconds * 1e9))}"


def landed(store: Store, event_type: EventType) -> list[str]:
    """Keys of all landing files of one type, sorted."""
    return [key for key in store.list(f"{ROOT}/{event_type}") if key.endswith(SUFFIXES)]


def lines(store: Store, key: str) -> Iterator[tuple[int, bytes]]:
    """Each line of a file of JSON lines with its byte offset; blank lines are skipped."""
    offset = 0
    for line in store.read(key).splitlines(keepends=True):
        if line.strip():
            yield offset, line
        offset += len(line)


def _name_of(nanoseconds: int) -> str:
    return f"{nanoseconds:020d}"


def _folder(event: Interaction | Feedback) -> str:
    if isinstance(event, Interaction):
        return f"{ROOT}/interaction/dt={_day(event.served_at)}"
    return f"{ROOT}/feedback/dt={_day(event.created_at)}"


def _day(seconds: float) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
    except (
        OSError,
        OverflowError,
        ValueError,
    ):  # a broken clock is for validation to name; the event still has to land
        return "unknown"
