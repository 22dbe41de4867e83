"""The curated tables: interactions, feedback and triplets as Delta tables, appended one collection at a time.

Every row carries the number of the collection that brought it, so "the table as it was after collection N" is a
filter, and stays one after compaction. A collection's number is also the application transaction of its commit:
of two writers that append the same collection, one commits and the other finds it done.
"""

import contextlib
import io
import json
import tempfile
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.compute.parquet import ROW_GROUP_ROWS, write_parquet
from ratchet.lake.schema import COLLECTION, Table
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

WRITER = "collect_triplets"
FILE_BYTES = 256 << 20
ALL = 2**62  # as `up_to`: later than any collection


def last_collection(store: Store, table: Table) -> int:
    """The newest collection committed to the table; 0 before the first."""
    return _committed(open_table(store, table))


def append(store: Store, table: Table, batches: "Iterable[pl.DataFrame]", collection: int) -> None:
    """Add a collection's rows, exactly once: what is committed already, by us or by another, is left as it is.

    All batches are gone through in any case, so that whoever counts them as they pass counts right.
    """
    import polars as pl
    from deltalake import CommitProperties, Transaction
    from deltalake.exceptions import CommitFailedError

    delta = _with_all_columns(store, table)
    if _committed(delta) >= collection:
        for _ in batches:
            pass
        return
    stamp = pl.lit(collection, dtype=pl.Int64).alias(COLLECTION)
    stamped = (rows.with_columns(stamp).select(list(table.schema)) for rows in batches)
    files = _write_all(store, table, _gathered(stamped))
    try:
        # Delta compares transactions only with commits newer than this handle, so it must not be opened anew here.
        delta.create_write_transaction(
            files,
            "append",
            delta.schema(),
            commit_properties=CommitProperties(app_transactions=[Transaction(WRITER, collection)]),
        )
    except CommitFailedError:
        if last_collection(store, table) < collection:
            raise


def scan(store: Store, table: Table, up_to: int) -> "pl.LazyFrame":
    """The table as it was after collection `up_to`."""
    import polars as pl

    open_table(store, table)
    uri, options = store.delta_uri(table.key)
    return pl.scan_delta(uri, storage_options=options).filter(pl.col(COLLECTION) <= up_to)


def row_batches(store: Store, table: Table, collections: Collection[int]) -> "Iterator[pl.DataFrame]":
    """What these collections brought, a row group or so at a time, in no order that lasts; others are not decoded."""
    import polars as pl

    _, options = store.delta_uri(table.key)
    for file in open_table(store, table).file_uris():
        rows = pl.scan_parquet(file, storage_options=options or None)
        for start in range(0, rows.select(pl.len()).collect().item(), ROW_GROUP_ROWS):
            stretch = rows.slice(start, ROW_GROUP_ROWS)
            is_wanted = stretch.select(pl.col(COLLECTION).is_in(collections)).collect().to_series()
            if not is_wanted.any():
                continue
            found = stretch.collect().filter(is_wanted)
            yield pl.concat([pl.DataFrame(schema=table.schema), found], how="diagonal").select(list(table.schema))


def ids(store: Store, table: Table, up_to: int) -> "Iterator[pl.DataFrame]":
    """Ids and collections of the table as it was after collection `up_to`, a file at a time; nothing else is read."""
    import polars as pl

    _, options = store.delta_uri(table.key)
    for file in open_table(store, table).file_uris():
        rows = pl.scan_parquet(file, storage_options=options or None)
        yield rows.select(table.id, COLLECTION).filter(pl.col(COLLECTION) <= up_to).collect()


def matching(store: Store, table: Table, up_to: int, ids: "pl.Series") -> "Iterator[pl.DataFrame]":
    """Rows of the table whose id is among `ids`, a file at a time.

    Ids are looked for in the id column alone; the rest is read of files that hold one. A table's history is much, and
    a day's votes are on answers of few days.
    """
    import polars as pl

    _, options = store.delta_uri(table.key)
    wanted = ids.unique().alias(table.id).to_frame().lazy()
    for file in open_table(store, table).file_uris():
        rows = pl.scan_parquet(file, storage_options=options or None).filter(pl.col(COLLECTION) <= up_to)
        if rows.select(table.id).join(wanted, on=table.id, how="semi").head(1).collect().height:
            yield rows.join(wanted, on=table.id, how="semi").collect()


def open_table(store: Store, table: Table) -> Any:
    """The table's newest version, created empty if need be; of several creators one wins and all go on."""
    from deltalake import DeltaTable

    uri, options = store.delta_uri(table.key)
    if not DeltaTable.is_deltatable(uri, storage_options=options):
        _create(store, table)
    return DeltaTable(uri, storage_options=options)


def _create(store: Store, table: Table) -> None:
    """Publish the table's first commit, once.

    Delta itself lets a second creator commit its metadata as version 1, which fails whoever is appending by then.
    """
    from deltalake import DeltaTable

    first_commit = "_delta_log/00000000000000000000.json"
    with tempfile.TemporaryDirectory() as folder:
        DeltaTable.create(folder, _arrow_schema(table))
        commit = Path(folder, first_commit).read_bytes()
    store.create_if_absent(f"{table.key}/{first_commit}", commit)


def _with_all_columns(store: Store, table: Table) -> Any:
    """The table, with the columns that one of an older version lacks."""
    from deltalake import Schema
    from deltalake.exceptions import CommitFailedError

    delta = open_table(store, table)
    known = {field.name for field in delta.schema().fields}
    new = [field for field in Schema.from_arrow(_arrow_schema(table)).fields if field.name not in known]
    if new:
        with contextlib.suppress(CommitFailedError):  # another collector added them
            delta.alter.add_columns(new)
        delta = open_table(store, table)
    return delta


def _gathered(batches: "Iterable[pl.DataFrame]") -> "Iterator[pl.DataFrame]":
    """The batches in lots that are worth a file."""
    import polars as pl

    lot: list[pl.DataFrame] = []
    for rows in batches:
        lot.append(rows)
        if sum(some.estimated_size() for some in lot) >= FILE_BYTES:
            yield pl.concat(lot)
            lot = []
    if lot:
        yield pl.concat(lot)


def _write_all(store: Store, table: Table, lots: "Iterable[pl.DataFrame]") -> list[Any]:
    """Write each lot while the next one is made, so that no more than two are in memory."""
    written: list[Any] = []
    with ThreadPoolExecutor(1) as writer:
        for rows in lots:
            if written:
                written[-1].result()
            written.append(writer.submit(_write, store, table, rows))
    return [file.result() for file in written]


def _write(store: Store, table: Table, rows: "pl.DataFrame") -> Any:
    """Write a data file of the table, not yet part of it; what a commit says of it."""
    from deltalake.transaction import AddAction

    file = io.BytesIO()
    write_parquet(rows, file)
    data = file.getvalue()
    name = f"part-{uuid.uuid4()}.parquet"
    store.create_if_absent(f"{table.key}/{name}", data)  # an earlier attempt may have been stored
    stats = json.dumps({"numRecords": rows.height})
    return AddAction(name, len(data), {}, int(time.time() * 1000), True, stats)


def _arrow_schema(table: Table) -> Any:
    import polars as pl

    return pl.DataFrame(schema=table.schema).to_arrow().schema


def _committed(delta: Any) -> int:
    return delta.transaction_version(WRITER) or 0
