"""Collections of triplets without their events: a table and records as collections would have left them."""

from collections.abc import Sequence

import polars as pl

from ratchet.collection.records import CollectionRecord, waiting_after, write_record
from ratchet.lake import tables
from ratchet.lake.fingerprint import Fingerprint
from ratchet.lake.schema import TRIPLETS
from ratchet.manifest import Artifact, Flow, Manifest
from ratchet.store import Store


def bring(lake: Store, number: int, triplets: pl.DataFrame) -> None:
    tables.append(lake, TRIPLETS, [triplets], number)
    content = Fingerprint.of(triplets)
    flow = Flow(rows_in=content.num_rows, rows_out=content.num_rows)
    done = CollectionRecord(
        number=number, interactions=flow, feedback=flow, refused=None, newest_s=0.0, content_sums=content.sums
    )
    write_record(lake, done, waiting_after(lake, 0))


def manifest(brought: Sequence[pl.DataFrame]) -> Manifest:
    """Of the collect step, after these collections."""
    content = sum((Fingerprint.of(triplets) for triplets in brought), Fingerprint())
    made = Artifact(uri=TRIPLETS.key, digest=content.digest(), rows=content.num_rows)
    return Manifest(
        step="collect_triplets",
        key=f"k{len(brought)}",
        inputs={},
        code_version="0",
        created_at=0,
        seconds=0,
        outputs={"triplets": made},
    )
