"""Parquet as we write it: fast to encode, fast to decode, the same bytes from the same rows.

By pyarrow, which takes a third less CPU than Polars' own writer, since only columns of few values get dictionaries:
the others would be encoded twice. LZ4 takes half the time of zstd; compaction of the lake saves the space.
"""

from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

ROW_GROUP_ROWS = 122_880  # fixed, since it shapes the bytes and so the digests
FEW_VALUES = (
    "tenant", "base_model", "adapter_name", "adapter_version", "adapter_digest", "arm", "params", "extra", "source",
    "score_name", "finish_reason", "other_finish_reason", "kind", "consent_training", "other_consent", "collection",
    "file", "reason",
)  # fmt: skip


def write_parquet(
    rows: "pl.DataFrame",
    where: Path | IO[bytes],
    *,
    sorted_by: str | None = None,
    row_group_rows: int = ROW_GROUP_ROWS,
) -> None:
    """Write the rows as one file, whatever chunks they are in.

    With `sorted_by`, whoever looks for a value of that column skips all row groups but one.
    """
    import polars as pl
    import pyarrow.parquet as pq

    pq.write_table(
        rows.rechunk().to_arrow(compat_level=pl.CompatLevel.newest()),
        where,
        row_group_size=row_group_rows,
        use_dictionary=[name for name in FEW_VALUES if name in rows.columns],
        compression="lz4",
        write_statistics=[sorted_by] if sorted_by else False,
        store_schema=False,
    )
