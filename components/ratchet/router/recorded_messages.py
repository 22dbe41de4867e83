"""Turn the messages of a request, in any of the APIs that clients speak, into the messages of the lake. Pure.

Whatever the pool may accept can be recorded: nothing here refuses. Media are recorded by digest and size, never by
their bytes, and a remote one by its address without the query, which may hold a signature.
"""

from base64 import b64decode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from ratchet.events import Message

TEXT_TYPES = ("text", "input_text", "output_text")
MAX_TEXT_CHARS = 4096  # a longer text in a part that is no text is content: the bytes of some medium


def as_message(given: Mapping[str, Any]) -> Message:
    """Return a message of a chat as it is recorded: `content` is its text, and other fields are kept."""
    content, rest = given.get("content"), {name: given[name] for name in given if name not in ("role", "content")}
    role = given.get("role")
    role = role if isinstance(role, str) else ""
    if isinstance(content, str):
        return Message(role=role, content=content, **_without_media(rest))
    parts = content if isinstance(content, list) else []
    if all(is_text(part) for part in parts):
        return Message(role=role, content=text_of(parts), **_without_media(rest))
    recorded = [part if is_text(part) else _without_media(part) for part in parts]
    return Message(role=role, content=text_of(parts), parts=recorded, **_without_media(rest))


def is_text(part: Any) -> bool:
    return isinstance(part, str) or (
        isinstance(part, dict) and part.get("type") in TEXT_TYPES and isinstance(part.get("text"), str)
    )


def text_of(parts: list[Any]) -> str:
    """Return the texts among the parts of a content, on lines of their own, as vLLM joins them."""
    return "\n".join(part if isinstance(part, str) else part["text"] for part in parts if is_text(part))


def _without_media(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_media(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_without_media(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value.startswith("data:"):
        head, _, data = value.partition(",")
        return _described(data, media_type=head[5:].partition(";")[0])
    if value.startswith(("http://", "https://")) and "?" in value:
        parts = urlsplit(value)
        return {"sha256": sha256(value.encode()).hexdigest(), "url": f"{parts.scheme}://{parts.hostname}{parts.path}"}
    return _described(value) if len(value) > MAX_TEXT_CHARS else value


def _described(data: str, **known: str) -> dict[str, Any]:
    """Return digest and size of the bytes that `data` is the base64 of; of itself if it is not base64."""
    try:
        content = b64decode(data, validate=True)
    except ValueError:
        content = data.encode()
    return {**known, "sha256": sha256(content).hexdigest(), "bytes": len(content)}
