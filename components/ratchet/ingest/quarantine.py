"""The dead-letter store of refused lines: keep their bytes, origin and fault, and land them again once fixed.

It shares the folder `quarantine/<digest>/` with the rows that break the data contract: a batch holds either
`refused.jsonl` (bytes that are not events) or Parquet (triplets, written by `validate_triplets`). Neither is changed.
"""

import base64
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pydantic import ValidationError

from ratchet.digest import canonical_json, digest_bytes
from ratchet.errors import UserError
from ratchet.events import Feedback, Interaction
from ratchet.manifest import Flow
from ratchet.store import Store

FOLDER = "quarantine"
REFUSED = "refused.jsonl"
DROPS = ("malformed", "known")
"""Lines that still are not events; events whose id the lake already holds, where the first one counts."""


@dataclass(frozen=True)
class RefusedLine:
    """Bytes that are not an event: a line of a landing file, or a record of an imported file."""

    file: str
    offset: int
    data: bytes
    why: str
    importer: str | None = None
    """The format that the record was imported as; None for a line of a landing file."""


def keep(store: Store, refused: Sequence[RefusedLine]) -> str:
    """Store refused bytes, base64 in JSON lines, named by content; return the key."""
    lines = [
        canonical_json(
            {"file": r.file, "offset": r.offset, "why": r.why, "bytes": base64.b64encode(r.data).decode()}
            | ({"importer": r.importer} if r.importer else {})
        )
        for r in refused
    ]
    data = b"\n".join(lines) + b"\n"
    key = f"{FOLDER}/{digest_bytes(data)}/{REFUSED}"
    store.create_if_absent(key, data)
    return key


def faults(error: ValidationError) -> str:
    """Describe the faults, field by field, in one line and without the data."""
    errors = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']}" for fault in errors)


def batches(store: Store) -> dict[str, list[str]]:
    """Return the keys of each batch's files, by its digest."""
    keys_by_batch: dict[str, list[str]] = {}
    for key in store.list(FOLDER):
        keys_by_batch.setdefault(PurePosixPath(key).parts[1], []).append(key)
    return keys_by_batch


def find(store: Store, start: str) -> tuple[str, list[str]]:
    """Return the batch whose digest starts with `start`, and its files. Raises UserError unless it is unique."""
    matches = [batch for batch in batches(store).items() if batch[0].startswith(start)]
    if len(matches) != 1:
        raise UserError(
            f"quarantine {start}: {len(matches)} batches of {store.root} start with it; see `ratchet quarantine list`"
        )
    return matches[0]


def refused(store: Store, keys: Iterable[str]) -> Iterator[RefusedLine]:
    """Yield the refused lines of a batch; none if it holds triplets."""
    for key in keys:
        if key.endswith(REFUSED):
            for line in store.read(key).splitlines():
                kept = json.loads(line)
                data = base64.b64decode(kept["bytes"])
                yield RefusedLine(kept["file"], kept["offset"], data, kept["why"], kept.get("importer"))


def land_again(store: Store, lines: Iterable[bytes]) -> Flow:
    """Land the lines that are now events and that the lake does not hold. Idempotent.

    Files are named by content and events count once by id, so a repeated or killed replay does not duplicate them.
    """
    from ratchet.ingest.landing import land

    drops: Counter[str] = Counter()
    events: dict[tuple[type, str], Interaction | Feedback] = {}
    rows_in = 0
    for line in lines:
        rows_in += 1
        kind = Feedback if b'"feedback_id"' in line else Interaction
        try:
            event = kind.model_validate_json(line)
        except ValidationError:
            drops["malformed"] += 1
        else:
            drops["known"] += _id(event) in events
            events.setdefault(_id(event), event)
    known = _known(store, set(events))
    new = {name: event for name, event in events.items() if name not in known}
    drops["known"] += len(events) - len(new)
    land(store, new.values())
    return Flow(rows_in=rows_in, rows_out=len(new), drops={reason: drops[reason] for reason in DROPS if drops[reason]})


def _id(event: Interaction | Feedback) -> tuple[type, str]:
    return (Feedback, event.feedback_id) if isinstance(event, Feedback) else (Interaction, event.interaction_id)


def _known(store: Store, names: set[tuple[type, str]]) -> set[tuple[type, str]]:
    """Return which of these events the lake's tables hold."""
    import polars as pl

    from ratchet.lake import tables
    from ratchet.lake.schema import FEEDBACK, INTERACTIONS

    known: set[tuple[type, str]] = set()
    for kind, table in ((Interaction, INTERACTIONS), (Feedback, FEEDBACK)):
        wanted = pl.LazyFrame({table.id: [name for of, name in names if of is kind]}, schema={table.id: pl.String})
        rows = tables.scan(store, table, tables.ALL).select(table.id).join(wanted, on=table.id, how="semi").collect()
        known |= {(kind, name) for name in rows[table.id]}
    return known
