"""Intents: which landing files are collected together, written down before any work is done.

Collection N takes every landing file that no earlier one took. Its intent is a create-only object, so of two
collectors one decides; from then on everything follows from the intent, and whoever is killed can be finished by
anybody. The intents are the watermark: nothing else remembers how far the lake has been read.
"""

from typing import Self

from pydantic import BaseModel, ConfigDict

from ratchet.digest import digest_json
from ratchet.errors import Conflict, UserError
from ratchet.ingest.landing import ROOT, landed
from ratchet.store import Store

FOLDER = "collections"


class Intent(BaseModel):
    """One collection: its number, counted from 1, its files, and how long feedback may wait (days)."""

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
    """Every landing file. Raises UserError if nothing has landed at all."""
    files = landed(store, "interaction") + landed(store, "feedback")
    if not files:
        raise UserError(
            f"{store.root}/{ROOT} holds no events; serve some, or `ratchet import pandalm FILE --lake {store.root}`"
        )
    return files


def landing_digest(store: Store) -> str:
    return digest_json(landing_files(store))


def intents(store: Store) -> list[Intent]:
    """All intents that were written, in order."""
    return [Intent.read(store, key) for key in store.list(FOLDER) if key.count("/") == 1]


def plan(store: Store, late_days: float) -> list[Intent]:
    """All collections, the last of which takes what has landed by now and was not taken before."""
    while True:
        written = intents(store)
        taken = {file for intent in written for file in intent.files}
        files = tuple(file for file in landing_files(store) if file not in taken)
        if not files:
            return written
        intent = Intent(number=len(written) + 1, files=files, late_days=late_days)
        try:
            store.create(intent.key, intent.model_dump_json(indent=1).encode())
        except Conflict:
            continue  # another collector decided first: read what it took
        return [*written, intent]
