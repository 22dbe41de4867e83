"""Digest rows as a multiset, independent of their order, files, batches and collections. Pure.

Each row is hashed (XXH3, two lanes) and the hashes are added, so the digests of parts combine into that of the whole,
and a table that grows by a day is digested by reading a day. A null adds nothing, so older rows keep their hash when a
column is added. Sums of hashes tell tables apart that differ by accident; they do not withstand rows built to collide
(Wagner, CRYPTO 2002).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from ratchet.digest import digest_json
from ratchet.lake.schema import COLLECTION

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

    Hashes = NDArray[np.uint64]

LANES = 2
MASK_32 = 0xFFFF_FFFF
SEED = 0x9E37_79B9_7F4A_7C15  # so that the number 0 differs from null


@dataclass(frozen=True)
class Fingerprint:
    """The number of rows, and the sum of their hashes in each lane; the column `collection` does not count."""

    num_rows: int = 0
    sums: tuple[int, ...] = (0,) * LANES

    @classmethod
    def of(cls, rows: "pl.DataFrame") -> Self:
        # Summed by halves, since a sum of 64-bit numbers overflows.
        halves = ((int((lane >> 32).sum()), int((lane & MASK_32).sum())) for lane in _row_hashes(rows))
        return cls(rows.height, tuple((high << 32) + low for high, low in halves))

    def __add__(self, other: "Fingerprint") -> Self:
        sums = (mine + theirs for mine, theirs in zip(self.sums, other.sums, strict=True))
        return type(self)(self.num_rows + other.num_rows, tuple(sums))

    def digest(self) -> str:
        return digest_json({"rows": self.num_rows, "sums": [f"{lane:x}" for lane in self.sums]})


def _row_hashes(rows: "pl.DataFrame") -> "list[Hashes]":
    """Return each row's hash by lane: its values' hashes, times a constant of column and lane, summed and mixed."""
    import numpy as np

    from ratchet.compute.hashing import splitmix64

    lanes = [np.zeros(rows.height, dtype=np.uint64) for _ in range(LANES)]
    for column in rows:
        if column.name != COLLECTION and column.null_count() < len(column):
            hashes = _value_hashes(column)
            for number, lane in enumerate(lanes):
                lane += hashes * np.uint64(int(digest_json([column.name, number])[:16], 16) | 1)
    return [splitmix64(lane) for lane in lanes]


def _value_hashes(column: "pl.Series") -> "Hashes":
    """Return XXH3 of texts and of nested values' JSON, the mixed bits of numbers, and 0 for null."""
    import numpy as np
    import polars as pl
    import polars_hash

    from ratchet.compute.hashing import splitmix64

    is_there = column.is_not_null()
    values = column.drop_nulls()
    if column.dtype.is_nested():
        values = values.to_frame("value").select(pl.struct("value").struct.json_encode()).to_series()
    if values.dtype == pl.String:
        hashed = values.to_frame("text").select(polars_hash.col("text").nchash.xxh3_64(seed=0)).to_series().to_numpy()
    else:
        hashed = splitmix64(_bits(values) ^ np.uint64(SEED))
    hashes = np.zeros(len(column), dtype=np.uint64)
    hashes[is_there.to_numpy()] = hashed
    return hashes


def _bits(numbers: "pl.Series") -> "Hashes":
    import polars as pl

    if numbers.dtype.is_float():  # all NaNs are the same, and 0.0 is -0.0
        return (numbers.fill_nan(float("nan")) + 0.0).cast(pl.Float64).to_numpy().view("uint64")
    return numbers.cast(pl.Int64, wrap_numerical=True).to_numpy().view("uint64")
