"""What cannot be read is kept: the bytes, where they came from, and why they were refused; mended, they land again.

`quarantine/<digest>/` holds either `refused.jsonl` (bytes that are no event) or Parquet (triplets that break the
contract, written by `validate_triplets`). Neither is ever changed.
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
"""Lines that are no events still; events whose id is in the lake already, where the first one counts."""


@dataclass(frozen=True)
class RefusedLine:
    """Bytes that are no event: a line of a landing file, or a record of an imported one."""

    file: str
    offset: int
    data: bytes
    why: str
    importer: str | None = None
    """The format that the record was imported as; None for a line of a landing file."""


def keep(store: Store, refused: Sequence[RefusedLine]) -> str:
    """Save refused bytes, base64 in JSON lines, under a name that is their content; the key."""
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
    """What is wrong, field by field, in one line and without the data."""
    found = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']}" for fault in found)


def batches(store: Store) -> dict[str, list[str]]:
    """Keys of the files of each batch, by its digest."""
    found: dict[str, list[str]] = {}
    for key in store.list(FOLDER):
        found.setdefault(PurePosixPath(key).parts[1], []).append(key)
    return found


def find(store: Store, start: str) -> tuple[str, list[str]]:
    """The one batch whose digest begins so, and its files; else UserError."""
    matches = [batch for batch in batches(store).items() if batch[0].startswith(start)]
    if len(matches) != 1:
        raise UserError(
            f"quarantine {start}: {len(matches)} batches of {store.root} begin so; `ratchet quarantine list` names them"
        )
    return matches[0]


def refused(store: Store, keys: Iterable[str]) -> Iterator[RefusedLine]:
    """The refused bytes of a batch; none if it holds triplets."""
    for key in keys:
        if key.endswith(REFUSED):
            for line in store.read(key).splitlines():
                kept = json.loads(line)
                data = base64.b64decode(kept["bytes"])
                yield RefusedLine(kept["file"], kept["offset"], data, kept["why"], kept.get("importer"))


def land_again(store: Store, lines: Iterable[bytes]) -> Flow:
    """Land the lines that are events by now and that the lake does not know; repeated, it lands nothing more.

    Files are named by content and events count once by id, so neither a second replay nor a killed one doubles them.
    """
    from ratchet.ingest.landing import land

    drops: Counter[str] = Counter()
    events: dict[tuple[type, str], Interaction | Feedback] = {}
    rows_in = 0
    for line in lines:
        rows_in += 1
        try:
            event = _event(line)
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


def _event(line: bytes) -> Interaction | Feedback:
    """A line as the event that its id says it is."""
    kind = Feedback if b'"feedback_id"' in line else Interaction
    return kind.model_validate_json(line)


def _id(event: Interaction | Feedback) -> tuple[type, str]:
    return (Feedback, event.feedback_id) if isinstance(event, Feedback) else (Interaction, event.interaction_id)


def _known(store: Store, names: set[tuple[type, str]]) -> set[tuple[type, str]]:
    """Which of these events the lake's tables hold."""
    import polars as pl

    from ratchet.lake import tables
    from ratchet.lake.schema import FEEDBACK, INTERACTIONS

    found: set[tuple[type, str]] = set()
    for kind, table in ((Interaction, INTERACTIONS), (Feedback, FEEDBACK)):
        wanted = pl.LazyFrame({table.id: [name for of, name in names if of is kind]}, schema={table.id: pl.String})
        rows = tables.scan(store, table, tables.ALL).select(table.id).join(wanted, on=table.id, how="semi").collect()
        found |= {(kind, name) for name in rows[table.id]}
    return found
