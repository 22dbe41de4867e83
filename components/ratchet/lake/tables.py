"""The curated tables: interactions, feedback and triplets as Delta tables, appended one collection at a time.

Every row carries the number of its collection (the watermark), so "the table as it was after collection N" is a filter,
also after compaction. That number is also the commit's application transaction, which makes appends exactly-once: of
two writers that append the same collection, one commits and the other finds it committed.
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
    """Return the newest collection committed to the table; 0 before the first."""
    return _committed(open_table(store, table))


def append(store: Store, table: Table, batches: "Iterable[pl.DataFrame]", collection: int) -> None:
    """Append a collection's rows exactly once: if any writer has committed them, nothing is written.

    All batches are consumed in any case: their producer counts rows as it yields them.
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
    files = _write_all(store, table, _file_sized(stamped))
    try:
        # Delta compares transactions only with commits newer than this handle, so do not reopen it here.
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
    """Scan the table as it was after collection `up_to`."""
    import polars as pl

    open_table(store, table)
    uri, options = store.delta_uri(table.key)
    return pl.scan_delta(uri, storage_options=options).filter(pl.col(COLLECTION) <= up_to)


def row_batches(store: Store, table: Table, collections: Collection[int]) -> "Iterator[pl.DataFrame]":
    """Yield the rows of these collections, about a row group at a time, in no fixed order; others are not decoded."""
    import polars as pl

    _, options = store.delta_uri(table.key)
    for file in open_table(store, table).file_uris():
        rows = pl.scan_parquet(file, storage_options=options or None)
        for start in range(0, rows.select(pl.len()).collect().item(), ROW_GROUP_ROWS):
            batch = rows.slice(start, ROW_GROUP_ROWS)
            is_wanted = batch.select(pl.col(COLLECTION).is_in(collections)).collect().to_series()
            if not is_wanted.any():
                continue
            wanted = batch.collect().filter(is_wanted)
            yield pl.concat([pl.DataFrame(schema=table.schema), wanted], how="diagonal").select(list(table.schema))


def ids(store: Store, table: Table, up_to: int) -> "Iterator[pl.DataFrame]":
    """Yield ids and collections of the table as it was after collection `up_to`, one file at a time."""
    import polars as pl

    _, options = store.delta_uri(table.key)
    for file in open_table(store, table).file_uris():
        rows = pl.scan_parquet(file, storage_options=options or None)
        yield rows.select(table.id, COLLECTION).filter(pl.col(COLLECTION) <= up_to).collect()


def matching(store: Store, table: Table, up_to: int, wanted: "pl.Series") -> "Iterator[pl.DataFrame]":
    """Yield the rows of the table whose column of the name of `wanted` has one of its values, one file at a time.

    Only that column of every file is read, and the rest of those with a match: the history is large, and a day's
    votes are on answers of few days. An older version's files may lack the column.
    """
    import polars as pl

    _, options = store.delta_uri(table.key)
    name, values = wanted.name, wanted.unique().to_frame().lazy()
    for file in open_table(store, table).file_uris():
        rows = pl.scan_parquet(file, storage_options=options or None).filter(pl.col(COLLECTION) <= up_to)
        if name not in rows.collect_schema():
            continue
        if rows.select(name).join(values, on=name, how="semi").head(1).collect().height:
            yield rows.join(values, on=name, how="semi").collect()


def open_table(store: Store, table: Table) -> Any:
    """Open the table's newest version, created empty if need be; concurrent creators all succeed."""
    from deltalake import DeltaTable

    uri, options = store.delta_uri(table.key)
    if not DeltaTable.is_deltatable(uri, storage_options=options):
        _create(store, table)
    return DeltaTable(uri, storage_options=options)


def _create(store: Store, table: Table) -> None:
    """Publish the table's first commit, once.

    Delta itself lets a second creator commit its metadata as version 1, which makes a concurrent append fail.
    """
    from deltalake import DeltaTable

    first_commit = "_delta_log/00000000000000000000.json"
    with tempfile.TemporaryDirectory() as folder:
        DeltaTable.create(folder, _arrow_schema(table))
        commit = Path(folder, first_commit).read_bytes()
    store.create_if_absent(f"{table.key}/{first_commit}", commit)


def _with_all_columns(store: Store, table: Table) -> Any:
    """Open the table, after adding the columns that an older version lacks."""
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


def _file_sized(batches: "Iterable[pl.DataFrame]") -> "Iterator[pl.DataFrame]":
    """Yield the batches concatenated to about `FILE_BYTES` each."""
    import polars as pl

    pending: list[pl.DataFrame] = []
    for rows in batches:
        pending.append(rows)
        if sum(batch.estimated_size() for batch in pending) >= FILE_BYTES:
            yield pl.concat(pending)
            pending = []
    if pending:
        yield pl.concat(pending)


def _write_all(store: Store, table: Table, files: "Iterable[pl.DataFrame]") -> list[Any]:
    """Write each file while the next one is prepared, so that at most two are in memory."""
    written: list[Any] = []
    with ThreadPoolExecutor(1) as writer:
        for rows in files:
            if written:
                written[-1].result()
            written.append(writer.submit(_write, store, table, rows))
    return [file.result() for file in written]


def _write(store: Store, table: Table, rows: "pl.DataFrame") -> Any:
    """Write a data file, which joins the table when it is committed; return the commit's action."""
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
