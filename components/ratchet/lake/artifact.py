"""The triplets that a manifest names, whatever was collected since: proven to be those, and a part at a time.

A part is a range of ids, so equal ids meet in one. Rows are set aside by part as the table is read, so memory does
not grow with the lake; only the ids are ever held together.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from ratchet.ahead import one_ahead
from ratchet.errors import UserError
from ratchet.lake.content import Content
from ratchet.lake.rows import COLLECTION, TRIPLETS
from ratchet.lake.spill import BUCKET, Spill
from ratchet.lake.tables import scan, stretches
from ratchet.store import Store

PART_ROWS = 250_000


def read_artifact(store: Store, digest: str, rows: int) -> pl.DataFrame:
    """All of the triplets, sorted by id. Raises UserError if the table no longer holds them."""
    return pl.concat(artifact_parts(store, digest, rows))


def artifact_parts(store: Store, digest: str, rows: int, part_rows: int = PART_ROWS) -> Iterator[pl.DataFrame]:
    """The triplets in parts of about `part_rows`, sorted by id within and among them; at least one, be it empty.

    Raises UserError, before the first part, if the table no longer holds them.
    """
    up_to = _collections(store, rows)
    bounds = _bounds(store, up_to, part_rows)
    with tempfile.TemporaryDirectory(prefix="ratchet-parts-") as folder:
        parts = Spill(Path(folder) / "parts", pl.DataFrame(schema=TRIPLETS.schema))
        content = Content()
        for found in one_ahead(stretches(store, TRIPLETS, up_to)):
            content += Content.of(found)
            parts.add(found.with_columns(bounds.search_sorted(found[TRIPLETS.id], side="right").alias(BUCKET)))
        if (content.num_rows, content.digest()) != (rows, digest):
            raise UserError(
                f"{store.root}/{TRIPLETS.key} no longer holds the {rows} rows with digest {digest[:12]} that were "
                "collected; run collect_triplets again"
            )
        for number in range(len(bounds) + 1):
            yield parts.read(number).sort(TRIPLETS.id)


def _collections(store: Store, rows: int) -> int:
    """The last collection of the triplets. Collections only add rows, so a row count names one state of the table."""
    counts = scan(store, TRIPLETS, up_to=2**62).group_by(COLLECTION).len().sort(COLLECTION)
    sizes = counts.with_columns(pl.col("len").cum_sum()).filter(pl.col("len") <= rows).collect()
    return int(sizes[COLLECTION][-1]) if sizes.height else 0


def _bounds(store: Store, up_to: int, part_rows: int) -> pl.Series:
    """The first id of each part but the first."""
    ids = scan(store, TRIPLETS, up_to).select(TRIPLETS.id).collect().to_series().sort()
    return ids.gather_every(part_rows, offset=part_rows).unique(maintain_order=True)
