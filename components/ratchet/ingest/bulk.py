"""Land events by the million: rows that already have the table's columns, written as Parquet.

Apart from `landing`, which the router imports: a router has no Polars.
"""

import io

import polars as pl

from ratchet.digest import digest_bytes
from ratchet.ingest.landing import ROOT
from ratchet.lake.schema import Table
from ratchet.store import Store

ROW_GROUP_ROWS = 131_072  # what the collector reads at a time: part of a row group costs decoding all of it
LAST_DAY_S = 253_402_300_799  # of the year 9999, the last that calendars have


def land_rows(store: Store, table: Table, rows: pl.DataFrame) -> list[str]:
    """Write rows of the table, without `collection`, durably as Parquet; return the files' keys, one for each day.

    Columns that have a default in the event may be absent. Files are named by content: landing twice lands once.
    """
    time_s = pl.col(table.time)
    in_calendar = pl.when(time_s.is_between(0, LAST_DAY_S)).then(time_s)
    day = pl.from_epoch(in_calendar.cast(pl.Int64)).dt.strftime("%Y-%m-%d").fill_null("unknown").alias("dt")
    days = rows.with_columns(day).partition_by("dt", as_dict=True, include_key=False, maintain_order=True)
    keys = []
    for (name,), part in sorted(days.items()):
        file = io.BytesIO()
        part.write_parquet(file, compression="zstd", compression_level=1, row_group_size=ROW_GROUP_ROWS)
        data = file.getvalue()
        keys.append(f"{ROOT}/{table.event_type}/dt={name}/{digest_bytes(data)[:32]}.parquet")
        store.create_if_absent(keys[-1], data)
    return keys
