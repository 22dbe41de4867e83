"""Rows set aside in buckets: what belongs together is worked on together, with one bucket in memory at a time."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import polars as pl

BUCKET = "bucket"


def bucket_of(column: str, num_buckets: int) -> "pl.Expr":
    """A row's bucket by the hash of a text. Name nothing that lasts by it: Polars may hash otherwise next year."""
    import polars as pl

    return (pl.col(column).hash() % num_buckets).alias(BUCKET)


class Spill:
    """Rows in buckets, each in files of a folder. Buckets that got no rows read as `empty`."""

    def __init__(self, folder: Path, empty: "pl.DataFrame") -> None:
        self.folder, self.empty = folder, empty
        self.num_rows = 0
        self._files: dict[int, list[Path]] = {}
        folder.mkdir()

    def add(self, rows: "pl.DataFrame") -> None:
        """Put rows where their column `bucket` says."""
        for (bucket,), part in rows.partition_by(BUCKET, as_dict=True, include_key=False).items():
            files = self._files.setdefault(bucket, [])
            files.append(self.folder / f"{bucket:05d}-{len(files):05d}.arrow")
            part.write_ipc(files[-1])
        self.num_rows += rows.height

    def read(self, bucket: int) -> "pl.DataFrame":
        import polars as pl

        found = [pl.read_ipc(file) for file in self._files.get(bucket, ())]
        return pl.concat([self.empty, *found])
