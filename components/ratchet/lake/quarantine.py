"""What cannot be read is kept: the bytes, where they came from, and why they were refused."""

import base64
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from ratchet.digest import canonical_json, digest_bytes
from ratchet.errors import Conflict
from ratchet.store import Store


@dataclass(frozen=True)
class Refused:
    """Bytes that are no event: a line of a landing file, or a record of an imported one."""

    file: str
    offset: int
    data: bytes
    why: str


def keep(store: Store, refused: Sequence[Refused]) -> str:
    """Save refused bytes, base64 in JSON lines, under a name that is their content; the key."""
    lines = [
        canonical_json({"file": r.file, "offset": r.offset, "why": r.why, "bytes": base64.b64encode(r.data).decode()})
        for r in refused
    ]
    data = b"\n".join(lines) + b"\n"
    key = f"quarantine/{digest_bytes(data)}/refused.jsonl"
    with contextlib.suppress(Conflict):  # the same bytes, kept before
        store.create(key, data)
    return key


def faults(error: ValidationError) -> str:
    """What is wrong, field by field, in one line and without the data."""
    found = error.errors(include_input=False, include_url=False)
    return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'record'}: {fault['msg']}" for fault in found)
