"""Turn the messages of a request, in any of the APIs that clients speak, into the messages of the lake. Pure.

Whatever the pool may accept can be recorded: nothing here refuses. Media are recorded by digest and size, never by
their bytes, and a remote one by its address without user, query and fragment, which may hold secrets.
"""

import re
from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from ratchet.events import Message

TEXT_TYPES = ("text", "input_text", "output_text")
BYTES_FIELDS = ("data", "file_data", "b64_json")  # of parts: always the base64 of a medium
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{1024,}={0,2}")
ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def as_message(given: Mapping[str, Any]) -> Message:
    """Return a message of a chat as it is recorded: `content` is its text, and other fields are kept."""
    content, role = given.get("content"), given.get("role")
    role = role if isinstance(role, str) else ""
    rest = {name: given[name] for name in given if name not in ("role", "content", "parts")}
    if isinstance(content, str):
        return Message(role=role, content=content, **rest)
    parts = content if isinstance(content, list) else []
    if all(is_text(part) for part in parts):
        return Message(role=role, content=text_of(parts), **rest)
    recorded = [part if is_text(part) else _without_media(part) for part in parts]
    return Message(role=role, content=text_of(parts), parts=recorded, **rest)


def is_text(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict) and part.get("type") in TEXT_TYPES and isinstance(part.get("text"), str)
    )


def text_of(parts: list[Any]) -> str:
    """Return the texts among the parts of a content, on lines of their own, as vLLM joins them."""
    return "\n".join(part if isinstance(part, str) else part["text"] for part in parts if is_text(part))


def _without_media(value: Any, name: str = "") -> Any:
    """Return a part that is no text, or a value in it, with what is a medium by digest, size and bare address."""
    if isinstance(value, dict):
        return {key: _without_media(inner, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_media(inner, name) for inner in value]
    if not isinstance(value, str):
        return value
    if value[:5].lower() == "data:":
        head, _, data = value.partition(",")
        return _described(data, media_type=head[5:].partition(";")[0])
    if ADDRESS.match(value):
        return {"sha256": sha256(_encoded(value)).hexdigest(), "url": _bare(value)}
    return _described(value) if name in BYTES_FIELDS or BASE64.fullmatch(value) else value


def _bare(address: str) -> str:
    """Return an address without what may be a secret: user, query and fragment."""
    try:
        parts = urlsplit(address)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    except ValueError:  # no address, though it begins like one
        return ""


def _described(data: str, **known: str) -> dict[str, Any]:
    """Return digest and size of the bytes that `data` is the base64 of; of itself if it is not base64."""
    try:
        content = b64decode(data, validate=True)
    except ValueError:
        content = _encoded(data)
    return {**known, "sha256": sha256(content).hexdigest(), "bytes": len(content)}


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")
