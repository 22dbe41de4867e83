"""Validated triplets: `validated/<digest of the rows>/parts.json` names the files that hold them, wherever they lie.

So a day more adds a day's files, and no history is copied.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

FOLDER = "validated"
PARTS = "parts.json"


def write_valid(store: Store, digest: str, keys: Sequence[str]) -> str:
    """Name the Parquet files that together hold the rows of this digest; the URI for a manifest."""
    uri = f"{FOLDER}/{digest}"
    store.create_if_absent(f"{uri}/{PARTS}", json.dumps(list(keys), indent=1).encode())
    return uri


def valid_files(store: Store, uri: str) -> list[Path]:
    """Local paths of the files, in order; of a folder without `parts.json`, its own."""
    if store.exists(f"{uri}/{PARTS}"):
        return [store.local(key) for key in json.loads(store.read(f"{uri}/{PARTS}"))]
    return sorted(store.local(uri).glob("*.parquet"))


def scan_valid(store: Store, uri: str) -> "pl.LazyFrame":
    """The rows; a column that an older file lacks is null there."""
    import polars as pl

    return pl.concat([pl.scan_parquet(file) for file in valid_files(store, uri)], how="diagonal")
