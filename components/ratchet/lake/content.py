"""The digest of rows as a set: whatever order, file, batch or collection they came in. Pure.

Each row is hashed (XXH3, two lanes) and the hashes are added up, so digests of parts combine into the digest of the
whole, and a table that grows by a day is digested by reading a day. Sums of hashes tell any two tables apart that
differ by accident; they do not withstand somebody who builds rows to collide (Wagner, CRYPTO 2002).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ratchet.digest import digest_json
from ratchet.lake.rows import COLLECTION

if TYPE_CHECKING:
    import polars as pl

LANES = 2
BATCH_ROWS = 250_000  # rows are written out as text to be hashed; so many at a time bound the memory
MASK_32 = 0xFFFF_FFFF


@dataclass(frozen=True)
class Content:
    """What some rows hold, `collection` aside: how many there are, and the sum of their hashes in each lane."""

    num_rows: int = 0
    sums: tuple[int, ...] = (0,) * LANES

    @classmethod
    def of(cls, rows: "pl.DataFrame") -> Self:
        found = cls()
        for start in range(0, rows.height, BATCH_ROWS):
            found += _content(rows[start : start + BATCH_ROWS])
        return found

    def __add__(self, other: "Content") -> Self:
        sums = (mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True))
        return type(self)(self.num_rows + other.num_rows, tuple(sums))

    def digest(self) -> str:
        return digest_json({"rows": self.num_rows, "sums": [f"{lane:x}" for lane in self.sums]})


def content_digest(rows: "pl.DataFrame") -> str:
    """The digest of a whole table in memory; to digest one in parts, add up `Content.of` them."""
    return Content.of(rows).digest()


def _content(rows: "pl.DataFrame") -> Content:
    import polars as pl
    import polars_hash

    names = sorted(name for name in rows.columns if name != COLLECTION)
    seed = int(digest_json(names)[:15], 16)  # rows of other columns are other rows
    written = rows.select(_written(rows, names).alias("row"))
    hashes = written.select(
        polars_hash.col("row").nchash.xxh3_64(seed=seed + lane).alias(str(lane)) for lane in range(LANES)
    )
    # In halves, since a sum of 64-bit numbers overflows.
    low = hashes.select((pl.all() & MASK_32).sum()).row(0)
    high = hashes.select((pl.all() // (MASK_32 + 1)).sum()).row(0)
    return Content(rows.height, tuple((top << 32) + bottom for top, bottom in zip(high, low, strict=True)))


def _written(rows: "pl.DataFrame", names: Sequence[str]) -> "pl.Expr":
    """Each row as one text, different for different rows: the values by column name, then how long each of them is."""
    import polars as pl

    values = [_value(pl.col(name), rows.schema[name]) for name in names]
    lengths = [value.str.len_bytes().cast(pl.String) for value in values]
    return pl.concat_str([part.fill_null("\x00") for part in (*values, *lengths)], separator="\x1f")


def _value(column: "pl.Expr", kind: "pl.DataType") -> "pl.Expr":
    import polars as pl

    if kind == pl.String:
        return column
    if kind.is_float():  # by its bits, for all NaNs the same, and 0.0 for -0.0
        same = pl.when(column.is_nan()).then(float("nan")).otherwise(column + 0.0)
        return same.cast(pl.Float64).reinterpret(dtype=pl.UInt64).cast(pl.String)
    if kind.is_nested():
        return pl.struct(column).struct.json_encode()
    return column.cast(pl.String)
