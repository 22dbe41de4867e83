"""Records of collections: what each one did, and the feedback that still waits, written when it is done.

A record is what a collection leaves to the next, so that a new day costs a day: nothing here is ever found out again
from the tables.
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


class Collected(BaseModel):
    """One collection that is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    interactions: Flow
    feedback: Flow
    refused: str | None
    newest_s: float
    """The latest sane time of any event so far, Unix seconds; 0 if there is none."""
    content_sums: tuple[int, ...]
    """The content of its triplets; their number is what came out of `feedback`."""

    @property
    def content(self) -> Fingerprint:
        """Of its triplets."""
        return Fingerprint(self.feedback.rows_out, self.content_sums)

    @classmethod
    def read(cls, store: Store, number: int) -> Self:
        return cls.model_validate_json(store.read(_key(number)))


def is_done(store: Store, number: int) -> bool:
    return store.exists(_key(number))


def records(store: Store) -> Iterator[Collected]:
    """All collections that are done, in order, read as they are asked for."""
    for key in store.list(FOLDER):
        if key.endswith(f"/{RECORD}"):
            yield Collected.model_validate_json(store.read(key))


def record(store: Store, done: Collected, waiting: "pl.DataFrame") -> None:
    """Write down that a collection is done. Whoever else did it wrote the same."""
    file = io.BytesIO()
    waiting.write_parquet(file)
    for key, data in (
        (_waiting_key(done.number), file.getvalue()),
        (_key(done.number), done.model_dump_json(indent=1).encode()),
    ):
        store.create_if_absent(key, data)


def waiting_after(store: Store, number: int) -> "pl.DataFrame":
    """Feedback that had not met its interaction after a collection; none after collection 0."""
    import polars as pl

    none = pl.DataFrame(schema={name: kind for name, kind in FEEDBACK.schema.items() if name != COLLECTION})
    if number == 0:
        return none
    waiting = pl.read_parquet(io.BytesIO(store.read(_waiting_key(number))))
    return pl.concat([none, waiting], how="diagonal")  # a lake of an older version lacks the newest columns


def flow(rows_in: int, rows_out: int, **drops: int) -> Flow:
    told = {reason: drops[reason] for reason in DROPS if drops.get(reason)}
    return Flow(rows_in=rows_in, rows_out=rows_out, drops=told)


def total(flows: Iterable[Flow]) -> Flow:
    flows = list(flows)
    drops: Counter[str] = sum((Counter(one.drops) for one in flows), Counter())
    return flow(sum(one.rows_in for one in flows), sum(one.rows_out for one in flows), **drops)


def _key(number: int) -> str:
    return f"{FOLDER}/{number:08d}/{RECORD}"


def _waiting_key(number: int) -> str:
    return f"{FOLDER}/{number:08d}/waiting.parquet"
