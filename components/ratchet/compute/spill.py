"""Spill rows to disk in hash buckets, so that one bucket at a time is joined or grouped in memory."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

BUCKET = "bucket"


def bucket_of(column: str, num_buckets: int) -> "pl.Expr":
    """Return each row's bucket, from a hash of a text. Not stable across Polars versions: never persist it."""
    import polars as pl

    return (pl.col(column).hash() % num_buckets).alias(BUCKET)


class Spill:
    """Rows in buckets, each in files of a folder. A bucket without rows reads as `empty`."""

    def __init__(self, folder: Path, empty: "pl.DataFrame") -> None:
        self.folder, self.empty = folder, empty
        self.num_rows = 0
        self._files: dict[int, list[Path]] = {}
        folder.mkdir()

    def add(self, rows: "pl.DataFrame") -> None:
        """Write rows to the bucket in their column `bucket`."""
        for (bucket,), part in rows.partition_by(BUCKET, as_dict=True, include_key=False).items():
            files = self._files.setdefault(bucket, [])
            files.append(self.folder / f"{bucket:05d}-{len(files):05d}.arrow")
            part.write_ipc(files[-1])
        self.num_rows += rows.height

    def read(self, bucket: int) -> "pl.DataFrame":
        import polars as pl

        frames = [pl.read_ipc(file) for file in self._files.get(bucket, ())]
        return pl.concat([self.empty, *frames])
