"""Records of collections: counts and fingerprint of each, and the feedback that still waits, written when it is done.

The next collection reads the record instead of the tables, so a new day costs a day.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from ratchet.collection.intents import FOLDER
from ratchet.lake.fingerprint import Fingerprint
from ratchet.lake.schema import COLLECTION, FEEDBACK
from ratchet.manifest import Flow
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

RECORD = "record.json"
DROPS = ("malformed", "duplicate", "waiting_for_interaction", "orphan")


class CollectionRecord(BaseModel):
    """A finished collection."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    interactions: Flow
    feedback: Flow
    refused: str | None
    newest_s: float
    """The latest sane time of any event up to this collection, Unix seconds; 0 if there is none."""
    content_sums: tuple[int, ...]
    """The fingerprint sums of its triplets; their number is `feedback.rows_out`."""

    @property
    def content(self) -> Fingerprint:
        """The fingerprint of its triplets."""
        return Fingerprint(self.feedback.rows_out, self.content_sums)

    @classmethod
    def read(cls, store: Store, number: int) -> Self:
        return cls.model_validate_json(store.read(_key(number)))


def is_done(store: Store, number: int) -> bool:
    return store.exists(_key(number))


def read_records(store: Store) -> Iterator[CollectionRecord]:
    """Yield the records of finished collections, in order, each read when it is asked for."""
    for key in store.list(FOLDER):
        if key.endswith(f"/{RECORD}"):
            yield CollectionRecord.model_validate_json(store.read(key))


def write_record(store: Store, done: CollectionRecord, waiting: "pl.DataFrame") -> None:
    """Write the record and the waiting feedback; another collector that did the same work wrote the same bytes."""
    file = io.BytesIO()
    waiting.write_parquet(file)
    for key, data in (
        (_waiting_key(done.number), file.getvalue()),
        (_key(done.number), done.model_dump_json(indent=1).encode()),
    ):
        store.create_if_absent(key, data)


def waiting_after(store: Store, number: int) -> "pl.DataFrame":
    """Return the feedback that still waited for its interaction after a collection; none after collection 0."""
    import polars as pl

    empty = pl.DataFrame(schema={name: kind for name, kind in FEEDBACK.schema.items() if name != COLLECTION})
    if number == 0:
        return empty
    waiting = pl.read_parquet(io.BytesIO(store.read(_waiting_key(number))))
    return pl.concat([empty, waiting], how="diagonal")  # an older version may have written fewer columns


def make_flow(rows_in: int, rows_out: int, **drops: int) -> Flow:
    return Flow(rows_in=rows_in, rows_out=rows_out, drops={name: drops[name] for name in DROPS if drops.get(name)})


def total_flow(flows: Iterable[Flow]) -> Flow:
    flows = list(flows)
    drops: Counter[str] = sum((Counter(flow.drops) for flow in flows), Counter())
    return make_flow(sum(flow.rows_in for flow in flows), sum(flow.rows_out for flow in flows), **drops)


def _key(number: int) -> str:
    return f"{FOLDER}/{number:08d}/{RECORD}"


def _waiting_key(number: int) -> str:
    return f"{FOLDER}/{number:08d}/waiting.parquet"
