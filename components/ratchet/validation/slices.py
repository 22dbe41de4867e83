"""The triplets that a manifest names, whatever was collected since: which collections brought them, in even slices.

A slice is a range of hashes of the ids of one collection. So equal ids of a collection meet in one, and as a
collection never changes, what is made of its slices is made once, however the lake grows.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import polars as pl
import polars_hash

from ratchet.collection.records import Collected, records
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
    """Triplets as a manifest names them."""

    digest: str
    rows: int


@dataclass(frozen=True)
class TripletSlice:
    """One of `of` parts of what a collection brought."""

    collection: Collected
    number: int
    of: int


def collections_of(store: Store, named: TripletSetRef) -> list[Collected]:
    """The collections that brought the triplets. Raises UserError if their records do not add up to the digest."""
    found, content = [], Fingerprint()
    for collection in records(store):
        found.append(collection)
        content += collection.content
        if content.num_rows == named.rows and content.digest() == named.digest:
            return found
    raise no_longer_there(store, named)


def slices(collections: Sequence[Collected], slice_rows: int) -> list[TripletSlice]:
    """Slices of about so many rows that hold all triplets of the collections; at least one, be it empty."""
    cut = []
    for collection in [one for one in collections if one.content.num_rows] or collections[:1]:
        of = max(1, -(-collection.content.num_rows // slice_rows))
        cut += [TripletSlice(collection, number, of) for number in range(of)]
    return cut


def slice_numbers(of: pl.Expr) -> pl.Expr:
    """The slice, of `of`, that a row's id falls to: by a hash that lasts."""
    upper: pl.Expr = polars_hash.col(TRIPLETS.id).nchash.xxh3_64(seed=0).fill_null(0) // 2**32
    return (upper * of.cast(pl.UInt64) // 2**32).alias(SLICE)


def partition_to_disk(store: Store, wanted: Sequence[TripletSlice], folder: Path) -> Spill:
    """The rows of the n-th slice in bucket n, as the table holds them, on disk: it is read once for all of them."""
    spill = Spill(folder, pl.DataFrame(schema=TRIPLETS.schema))
    places = pl.DataFrame(
        [(one.collection.number, one.of, one.number, bucket) for bucket, one in enumerate(wanted)],
        {COLLECTION: pl.Int64, "of": pl.Int64, SLICE: pl.UInt64, BUCKET: pl.Int64},
        orient="row",
    )
    sizes = places.select(COLLECTION, "of").unique()
    for found in prefetch_one(row_batches(store, TRIPLETS, sizes[COLLECTION].to_list())):
        sized = found.select(TRIPLETS.id, COLLECTION).join(sizes, on=COLLECTION, how="left", maintain_order="left")
        sliced = sized.select(COLLECTION, slice_numbers(pl.col("of")))
        placed = sliced.join(places, on=[COLLECTION, SLICE], how="left", maintain_order="left")
        spill.add(found.with_columns(placed[BUCKET]).filter(pl.col(BUCKET).is_not_null()))
    return spill


def repeated_ids(store: Store, named: TripletSetRef, collections: Sequence[Collected]) -> dict[int, list[str]]:
    """Ids that occur more than once, by each collection that has one; normally there are none.

    Looks at ids alone. Raises UserError if a collection has not as many rows as it brought.
    """
    num_rows, hashes = Counter[int](), [pl.Series([], dtype=pl.UInt64)]
    for found in ids(store, TRIPLETS, collections[-1].number):
        num_rows.update(dict(found.group_by(COLLECTION).len().iter_rows()))
        hashes.append(found[TRIPLETS.id].drop_nulls().hash())
    if num_rows != Counter({one.number: one.content.num_rows for one in collections}):
        raise no_longer_there(store, named)
    ordered = pl.concat(hashes).sort()
    twice = ordered.filter(ordered == ordered.shift(1)).unique()
    return _who_has(store, collections[-1].number, twice) if len(twice) else {}


def _who_has(store: Store, up_to: int, hashes: pl.Series) -> dict[int, list[str]]:
    alike = pl.col(TRIPLETS.id).hash().is_in(hashes.implode())
    rows = pl.concat(found.drop_nulls().filter(alike) for found in ids(store, TRIPLETS, up_to))
    repeated = rows.filter(pl.col(TRIPLETS.id).is_duplicated()).unique().sort(TRIPLETS.id)
    by_collection = repeated.group_by(COLLECTION, maintain_order=True).agg(TRIPLETS.id)
    return dict(by_collection.iter_rows())


def no_longer_there(store: Store, named: TripletSetRef) -> UserError:
    return UserError(
        f"{store.root}/{TRIPLETS.key} no longer holds the {named.rows} rows with digest {named.digest[:12]} that were "
        "collected; run collect_triplets again"
    )
