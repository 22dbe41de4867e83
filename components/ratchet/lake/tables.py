"""The curated tables: interactions, feedback and triplets as Delta tables, appended one collection at a time.

Every row carries the number of the collection that brought it, so "the table as it was after collection N" is a
filter, and stays one after compaction. A collection's number is also the application transaction of its commit:
of two writers that append the same collection, one commits and the other finds it done.
"""

from typing import TYPE_CHECKING, Any

from ratchet.errors import UserError
from ratchet.lake.rows import COLLECTION, TRIPLETS, Table, content_digest
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

WRITER = "collect_triplets"


def last_collection(store: Store, table: Table) -> int:
    """The newest collection committed to the table; 0 before the first."""
    return _committed(_open(store, table))


def append(store: Store, table: Table, rows: "pl.DataFrame", collection: int) -> None:
    """Add a collection's rows, exactly once: what is committed already, by us or by another, is left as it is."""
    from deltalake import CommitProperties, Transaction, write_deltalake
    from deltalake.exceptions import CommitFailedError

    delta = _open(store, table)
    if _committed(delta) >= collection:
        return
    import polars as pl

    stamped = rows.with_columns(pl.lit(collection, dtype=pl.Int64).alias(COLLECTION)).select(list(table.schema))
    properties = CommitProperties(app_transactions=[Transaction(WRITER, collection)])
    try:
        # Delta compares transactions only with commits newer than this handle, so it must not be opened anew here.
        write_deltalake(delta, stamped, mode="append", commit_properties=properties)
    except CommitFailedError:
        if last_collection(store, table) < collection:
            raise


def scan(store: Store, table: Table, up_to: int) -> "pl.LazyFrame":
    """The table as it was after collection `up_to`."""
    import polars as pl

    _open(store, table)
    uri, options = store.delta_uri(table.key)
    return pl.scan_delta(uri, storage_options=options).filter(pl.col(COLLECTION) <= up_to)


def read_artifact(store: Store, digest: str, rows: int) -> "pl.DataFrame":
    """The triplets that a manifest names, whatever was collected since, sorted by id.

    Collections only add rows, so a row count names one state of the table; the digest then proves it.
    """
    import polars as pl

    counts = scan(store, TRIPLETS, up_to=2**62).group_by(COLLECTION).len().sort(COLLECTION)
    sizes = counts.with_columns(pl.col("len").cum_sum()).filter(pl.col("len") <= rows).collect()
    up_to = int(sizes[COLLECTION][-1]) if sizes.height else 0
    found = sorted_triplets(store, up_to)
    if found.height != rows or content_digest(found) != digest:
        raise UserError(
            f"{store.root}/{TRIPLETS.key} no longer holds the {rows} rows with digest {digest[:12]} that were "
            "collected; run collect_triplets again"
        )
    return found


def sorted_triplets(store: Store, up_to: int) -> "pl.DataFrame":
    """Triplets up to a collection, in the order that their digest is defined on."""
    return scan(store, TRIPLETS, up_to).sort(TRIPLETS.id).collect()


def _open(store: Store, table: Table) -> Any:
    """The table's newest version, created empty if need be; of several creators one wins and all go on."""
    import polars as pl
    from deltalake import DeltaTable

    uri, options = store.delta_uri(table.key)
    if not DeltaTable.is_deltatable(uri, storage_options=options):
        arrow = pl.DataFrame(schema=table.schema).to_arrow().schema
        DeltaTable.create(uri, arrow, mode="ignore", storage_options=options)
    return DeltaTable(uri, storage_options=options)


def _committed(delta: Any) -> int:
    return delta.transaction_version(WRITER) or 0
