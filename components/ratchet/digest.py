"""SHA-256 content digests, which name every artifact, and the canonical JSON that they are computed from."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHUNK_BYTES = 1 << 20


def canonical_text(value: Any, *, allow_nan: bool = False) -> str:
    """Return JSON with sorted keys and no spaces: equal values give equal texts.

    NaN and infinity, which JSON has no spelling for, raise ValueError, or are written as Python reads them.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=allow_nan)


def canonical_json(value: Any) -> bytes:
    """Return `canonical_text` in UTF-8. Raises ValueError for NaN, infinity, and half a surrogate pair."""
    return canonical_text(value).encode()


def digest_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digest_json(value: Any) -> str:
    return digest_bytes(canonical_json(value))


def digest_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_members(members: Mapping[str, str]) -> str:
    """Return the digest of named contents, given the digest of each."""
    return digest_json(dict(members))


def digest_tree(root: Path) -> str:
    """Return the digest of a folder from its files' relative names and contents; times and modes do not count."""
    files = sorted(path for path in root.rglob("*") if path.is_file())
    return digest_members({path.relative_to(root).as_posix(): digest_file(path) for path in files})
