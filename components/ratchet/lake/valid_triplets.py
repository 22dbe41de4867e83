"""Validated triplets: `validated/<digest of the rows>/parts.json` lists the files that hold them.

One more day adds a day's files, and no history is copied.
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
    """List the Parquet files that together hold the rows of this digest; return the URI for a manifest."""
    uri = f"{FOLDER}/{digest}"
    store.create_if_absent(f"{uri}/{PARTS}", json.dumps(list(keys), indent=1).encode())
    return uri


def valid_files(store: Store, uri: str) -> list[Path]:
    """Return local paths of the files, in order; for a folder without `parts.json`, of its own Parquet files."""
    if store.exists(f"{uri}/{PARTS}"):
        return [store.local(key) for key in json.loads(store.read(f"{uri}/{PARTS}"))]
    return sorted(store.local(uri).glob("*.parquet"))


def scan_valid(store: Store, uri: str) -> "pl.LazyFrame":
    """Scan the rows; a column that an older file lacks is null there."""
    import polars as pl

    return pl.concat([pl.scan_parquet(file) for file in valid_files(store, uri)], how="diagonal")
