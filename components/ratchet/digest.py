"""Content digests: the names of everything Ratchet makes."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def canonical_json(value: Any) -> bytes:
    """UTF-8 JSON with sorted keys and no spaces: equal values give equal bytes. NaN is refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_members(members: Mapping[str, str]) -> str:
    """The digest of a set of named contents, given each one's own digest."""
    return digest_json(dict(members))


def digest_tree(root: Path) -> str:
    """The digest of a folder: relative names and contents, nothing else of the file system."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return digest_members({path.relative_to(root).as_posix(): digest_file(path) for path in files})
