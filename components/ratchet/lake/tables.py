"""The curated tables: interactions, feedback and triplets as Delta tables, appended one collection at a time.

Every row carries the number of the collection that brought it, so "the table as it was after collection N" is a
filter, and stays one after compaction. A collection's number is also the application transaction of its commit:
of two writers that append the same collection, one commits and the other finds it done.
"""

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratchet.digest import canonical_json
from ratchet.errors import UserError
from ratchet.events import Feedback, Interaction
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

WRITER = "collect_triplets"
COLLECTION = "collection"


@dataclass(frozen=True)
class Table:
    """A Delta table of the lake: its key, its id column, and its columns with their types."""

    key: str
    id: str
    schema: dict[str, type]


INTERACTIONS = Table(
    "tables/interactions",
    "interaction_id",
    {
        "interaction_id": str, "conversation_id": str, "subject_id": str, "tenant": str, "messages": str,
        "response": str, "base_model": str, "adapter_name": str, "adapter_version": str, "adapter_digest": str,
        "arm": str, "params": str, "prompt_tokens": int, "completion_tokens": int, "latency_ms": float,
        "finish_reason": str, "served_at": float, "extra": str, COLLECTION: int,
    },
)  # fmt: skip
FEEDBACK = Table(
    "tables/feedback",
    "feedback_id",
    {
        "feedback_id": str, "interaction_id": str, "subject_id": str, "kind": str, "value_num": float,
        "value_text": str, "is_tie": bool, "source": str, "created_at": float, "extra": str, COLLECTION: int,
    },
)  # fmt: skip
TRIPLETS = Table(
    "tables/triplets",
    "triplet_id",
    {
        "triplet_id": str, "interaction_id": str, "conversation_id": str, "subject_id": str, "tenant": str,
        "messages": str, "response": str, "kind": str, "value_num": float, "value_text": str, "is_tie": bool,
        "other_response": str, "source": str, "created_at": float, "served_at": float, "base_model": str,
        "adapter_name": str, "adapter_version": str, "adapter_digest": str, "arm": str, COLLECTION: int,
    },
)  # fmt: skip


def interaction_row(event: Interaction) -> dict[str, Any]:
    """The event as a row of the interactions table; fields that we do not know are kept as JSON in `extra`."""
    row = event.model_dump(mode="json", exclude={"messages", "params", *(event.model_extra or {})})
    messages = [message.model_dump(mode="json") for message in event.messages]
    return {
        **row,
        "messages": _json(messages),
        "params": _json(event.params),
        "served_at": event.served_at,
        "latency_ms": event.latency_ms,
        "extra": _json(event.model_extra or {}),
    }


def feedback_row(event: Feedback) -> dict[str, Any]:
    """The event as a row of the feedback table: `value` goes to `value_num` or `value_text` by its type."""
    row = event.model_dump(exclude={"value", *(event.model_extra or {})})
    is_text = isinstance(event.value, str)
    return {
        **row,
        "value_num": None if is_text else event.value,
        "value_text": event.value if is_text else None,
        "extra": _json(event.model_extra or {}),
    }


def last_collection(store: Store, table: Table) -> int:
    """The newest collection committed to the table; 0 before the first."""
    return _committed(_open(store, table))


def append(store: Store, table: Table, rows: "pl.DataFrame", collection: int) -> None:
    """Add a collection's rows, exactly once: what is committed already, by us or by another, is left as it is."""
    from deltalake import CommitProperties, Transaction, write_deltalake
    from deltalake.exceptions import CommitFailedError

    delta = _open(store, table)
    if _committed(delta) >= collection:
        return
    import polars as pl

    stamped = rows.with_columns(pl.lit(collection, dtype=pl.Int64).alias(COLLECTION)).select(list(table.schema))
    properties = CommitProperties(app_transactions=[Transaction(WRITER, collection)])
    try:
        # Delta compares transactions only with commits newer than this handle, so it must not be opened anew here.
        write_deltalake(delta, stamped, mode="append", commit_properties=properties)
    except CommitFailedError:
        if last_collection(store, table) < collection:
            raise


def scan(store: Store, table: Table, up_to: int) -> "pl.LazyFrame":
    """The table as it was after collection `up_to`."""
    import polars as pl

    _open(store, table)
    uri, options = store.delta_uri(table.key)
    return pl.scan_delta(uri, storage_options=options).filter(pl.col(COLLECTION) <= up_to)


def read_artifact(store: Store, digest: str, rows: int) -> "pl.DataFrame":
    """The triplets that a manifest names, whatever was collected since, sorted by id.

    Collections only add rows, so a row count names one state of the table; the digest then proves it.
    """
    import polars as pl

    counts = scan(store, TRIPLETS, up_to=2**62).group_by(COLLECTION).len().sort(COLLECTION)
    sizes = counts.with_columns(pl.col("len").cum_sum()).filter(pl.col("len") <= rows).collect()
    up_to = int(sizes[COLLECTION][-1]) if sizes.height else 0
    found = sorted_triplets(store, up_to)
    if found.height != rows or content_digest(found) != digest:
        raise UserError(
            f"{store.root}/{TRIPLETS.key} no longer holds the {rows} rows with digest {digest[:12]} that were "
            "collected; run collect_triplets again"
        )
    return found


def sorted_triplets(store: Store, up_to: int) -> "pl.DataFrame":
    """Triplets up to a collection, in the order that their digest is defined on."""
    return scan(store, TRIPLETS, up_to).sort(TRIPLETS.id).collect()


def content_digest(rows: "pl.DataFrame") -> str:
    """The digest of rows in their order, as canonical JSON lines; which collection brought a row does not count."""
    digest = hashlib.sha256()
    for row in rows.drop(COLLECTION).iter_rows(named=True):
        digest.update(canonical_json({name: _finite(value) for name, value in row.items()}) + b"\n")
    return digest.hexdigest()


def _finite(value: Any) -> Any:
    return repr(value) if isinstance(value, float) and not math.isfinite(value) else value


def _json(value: Any) -> str:
    import json

    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _open(store: Store, table: Table) -> Any:
    """The table's newest version, created empty if need be; of several creators one wins and all go on."""
    import polars as pl
    from deltalake import DeltaTable

    uri, options = store.delta_uri(table.key)
    if not DeltaTable.is_deltatable(uri, storage_options=options):
        arrow = pl.DataFrame(schema=table.schema).to_arrow().schema
        DeltaTable.create(uri, arrow, mode="ignore", storage_options=options)
    return DeltaTable(uri, storage_options=options)


def _committed(delta: Any) -> int:
    return delta.transaction_version(WRITER) or 0
