"""Whole tables of a lake, in memory: what tests compare, and no step reads at once."""

import tempfile
from pathlib import Path

import polars as pl

from ratchet.lake.fingerprint import Fingerprint
from ratchet.lake.schema import TRIPLETS
from ratchet.store import Store
from ratchet.validation.slices import (
    SLICE_ROWS,
    TripletSetRef,
    collections_of,
    partition_to_disk,
    slices,
    triplets_changed,
)


def fingerprint_digest(rows: pl.DataFrame) -> str:
    return Fingerprint.of(rows).digest()


def read_triplets(store: Store, digest: str, rows: int) -> pl.DataFrame:
    """Return all of the triplets, sorted by id. Raises UserError if the table no longer holds them."""
    wanted = TripletSetRef(digest, rows)
    parts = slices(collections_of(store, wanted), SLICE_ROWS)
    with tempfile.TemporaryDirectory(prefix="ratchet-parts-") as folder:
        spill = partition_to_disk(store, parts, Path(folder) / "slices")
        triplets = pl.concat(spill.read(number) for number in range(len(parts)))
    if fingerprint_digest(triplets) != digest:
        raise triplets_changed(store, wanted)
    return triplets.sort(TRIPLETS.id)
