"""Slice the triplets that a manifest names: find their collections, and cut each into slices of about equal size.

A slice is a range of hashes of one collection's ids, so equal ids of a collection are in one slice. A collection never
changes, so each slice is validated once, however the lake grows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl
import polars_hash

from ratchet.collection.records import CollectionRecord, read_records
from ratchet.compute.prefetch import prefetch_one
from ratchet.compute.spill import BUCKET, Spill
from ratchet.errors import UserError
from ratchet.lake.fingerprint import Fingerprint
from ratchet.lake.schema import COLLECTION, TRIPLETS
from ratchet.lake.tables import ids, row_batches
from ratchet.store import Store

SLICE_ROWS = 250_000
SLICE = "slice"


class TripletSetRef(NamedTuple):
    """A set of triplets as a manifest names it: digest and number of rows."""

    digest: str
    rows: int


@dataclass(frozen=True)
class TripletSlice:
    """Slice `number` (from 0) of `of` of a collection's triplets."""

    collection: CollectionRecord
    number: int
    of: int


def collections_of(store: Store, named: TripletSetRef) -> list[CollectionRecord]:
    """Return the collections of the triplets. Raises UserError if no run of records adds up to the digest."""
    collections, content = [], Fingerprint()
    for collection in read_records(store):
        collections.append(collection)
        content += collection.content
        if content.num_rows == named.rows and content.digest() == named.digest:
            return collections
    raise triplets_changed(store, named)


def slices(collections: Sequence[CollectionRecord], slice_rows: int) -> list[TripletSlice]:
    """Cut the collections into slices of at most about `slice_rows` rows; at least one slice, which may be empty."""
    cut = []
    for collection in [record for record in collections if record.content.num_rows] or collections[:1]:
        of = max(1, -(-collection.content.num_rows // slice_rows))
        cut += [TripletSlice(collection, number, of) for number in range(of)]
    return cut


def slice_numbers(of: pl.Expr) -> pl.Expr:
    """Return each row's slice, of `of`, from a stable hash of its id."""
    upper: pl.Expr = polars_hash.col(TRIPLETS.id).nchash.xxh3_64(seed=0).fill_null(0) // 2**32
    return (upper * of.cast(pl.UInt64) // 2**32).alias(SLICE)


def partition_to_disk(store: Store, wanted: Sequence[TripletSlice], folder: Path) -> Spill:
    """Spill the rows of the n-th slice to bucket n; the table is read once for all slices."""
    spill = Spill(folder, pl.DataFrame(schema=TRIPLETS.schema))
    buckets = pl.DataFrame(
        [(part.collection.number, part.of, part.number, bucket) for bucket, part in enumerate(wanted)],
        {COLLECTION: pl.Int64, "of": pl.Int64, SLICE: pl.UInt64, BUCKET: pl.Int64},
        orient="row",
    )
    sizes = buckets.select(COLLECTION, "of").unique()
    for batch in prefetch_one(row_batches(store, TRIPLETS, sizes[COLLECTION].to_list())):
        sized = batch.select(TRIPLETS.id, COLLECTION).join(sizes, on=COLLECTION, how="left", maintain_order="left")
        sliced = sized.select(COLLECTION, slice_numbers(pl.col("of")))
        placed = sliced.join(buckets, on=[COLLECTION, SLICE], how="left", maintain_order="left")
        spill.add(batch.with_columns(placed[BUCKET]).filter(pl.col(BUCKET).is_not_null()))
    return spill


def repeated_ids(store: Store, named: TripletSetRef, collections: Sequence[CollectionRecord]) -> dict[int, list[str]]:
    """Return ids that occur more than once, by each collection that has one; normally there are none.

    Reads only ids. Raises UserError if the table's number of rows differs from a collection's record.
    """
    num_rows, hashes = Counter[int](), [pl.Series([], dtype=pl.UInt64)]
    for batch in ids(store, TRIPLETS, collections[-1].number):
        num_rows.update(dict(batch.group_by(COLLECTION).len().iter_rows()))
        hashes.append(batch[TRIPLETS.id].drop_nulls().hash())
    if num_rows != Counter({record.number: record.content.num_rows for record in collections}):
        raise triplets_changed(store, named)
    ordered = pl.concat(hashes).sort()
    twice = ordered.filter(ordered == ordered.shift(1)).unique()
    return _who_has(store, collections[-1].number, twice) if len(twice) else {}


def _who_has(store: Store, up_to: int, hashes: pl.Series) -> dict[int, list[str]]:
    alike = pl.col(TRIPLETS.id).hash().is_in(hashes.implode())
    rows = pl.concat(batch.drop_nulls().filter(alike) for batch in ids(store, TRIPLETS, up_to))
    repeated = rows.filter(pl.col(TRIPLETS.id).is_duplicated()).unique().sort(TRIPLETS.id)
    by_collection = repeated.group_by(COLLECTION, maintain_order=True).agg(TRIPLETS.id)
    return dict(by_collection.iter_rows())


def triplets_changed(store: Store, named: TripletSetRef) -> UserError:
    return UserError(
        f"{store.root}/{TRIPLETS.key} no longer holds the {named.rows} rows with digest {named.digest[:12]} that were "
        "collected; run collect_triplets again"
    )
