"""Intents: the list of landing files of each collection, written before any of its work.

Collection N takes every landing file that no earlier one took. Its intent is a create-only object, so of two concurrent
collectors one decides; everything else follows from the intent, so any collector can finish the work of a killed one.
The intents are the watermark: nothing else records how far the lake has been read.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from ratchet.digest import digest_json
from ratchet.errors import Conflict, UserError
from ratchet.ingest.landing import ROOT, landed
from ratchet.store import Store

FOLDER = "collections"


class Intent(BaseModel):
    """One collection: its number (from 1), its files, and the days that feedback may wait for its interaction."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    number: int
    files: tuple[str, ...]
    late_days: float

    @classmethod
    def read(cls, store: Store, key: str) -> Self:
        return cls.model_validate_json(store.read(key))

    @property
    def key(self) -> str:
        return f"{FOLDER}/{self.number:08d}.json"

    def files_of(self, event_type: str) -> list[str]:
        return [file for file in self.files if file.startswith(f"{ROOT}/{event_type}/")]


def landing_files(store: Store) -> list[str]:
    """Return every landing file. Raises UserError if nothing has landed."""
    files = landed(store, "interaction") + landed(store, "feedback")
    if not files:
        raise UserError(
            f"{store.root}/{ROOT} holds no events; serve some, or `ratchet import pandalm FILE --lake {store.root}`"
        )
    return files


def landing_digest(store: Store) -> str:
    return digest_json(landing_files(store))


def read_intents(store: Store) -> list[Intent]:
    """Return all written intents, in order."""
    return [Intent.read(store, key) for key in store.list(FOLDER) if key.count("/") == 1]


def plan_collections(store: Store, late_days: float) -> list[Intent]:
    """Return all collections; if files have landed since the last, write the intent of one more that takes them."""
    while True:
        written = read_intents(store)
        taken = {file for intent in written for file in intent.files}
        files = tuple(file for file in landing_files(store) if file not in taken)
        if not files:
            return written
        intent = Intent(number=len(written) + 1, files=files, late_days=late_days)
        try:
            store.create(intent.key, intent.model_dump_json(indent=1).encode())
        except Conflict:
            continue  # another collector was first: read its intent
        return [*written, intent]
