"""Parse a chat completion from its JSON or its server-sent events, and hide the model's name in it. Pure."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class ParsedCompletion:
    """The text of the only choice, and the server's token counts: 0 for a stream that was not asked for them."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def read_answer(body: bytes) -> ParsedCompletion:
    """Parse a whole completion. Raises ValueError for anything else."""
    try:
        completion = json.loads(body)
        choice = completion["choices"][0]
        return _answer(choice["message"]["content"], choice["finish_reason"], completion)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no chat completion: {error!r} in {body[:200]!r}") from None


def read_stream(body: bytes) -> ParsedCompletion:
    """Parse a whole stream. Raises ValueError for anything else, or a stream that broke off."""
    try:
        chunks = list(_chunks(body))
        choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
        text = "".join(choice["delta"].get("content") or "" for choice in choices)
        reasons = [choice["finish_reason"] for choice in choices if choice.get("finish_reason")]
        return _answer(text, reasons[-1], chunks[-1])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise ValueError(f"no whole stream of a chat completion: {error!r} in {body[-200:]!r}") from None


def read_part(body: bytes, ending: str) -> ParsedCompletion:
    """Parse a stream that ended early, for the reason `ending`: the text so far."""
    whole = body[: body.rfind(b"\n\n") + 2]
    try:
        texts = [choice["delta"].get("content") or "" for chunk in _chunks(whole) for choice in chunk["choices"]]
    except (ValueError, KeyError, TypeError):
        texts = []
    return _answer("".join(texts), ending, {})


def with_model(body: bytes, name: str) -> bytes:
    """Return a whole completion with `name` as its model: the pool's own name says which adapter answered."""
    return json.dumps({**json.loads(body), "model": name}, separators=(",", ":")).encode()


class EventRenamer:
    """Gives the events of a stream `name` as their model, piece by piece; whatever names no model stays as it is."""

    def __init__(self, name: str) -> None:
        self._name, self._incomplete = name, b""

    def feed(self, part: bytes) -> bytes:
        """Return the lines that are complete with this part of the stream."""
        *lines, self._incomplete = (self._incomplete + part).split(b"\n")
        return b"".join(self._renamed(line) + b"\n" for line in lines)

    def rest(self) -> bytes:
        """Return an incomplete last line."""
        return self._renamed(self._incomplete)

    def _renamed(self, line: bytes) -> bytes:
        if not line.startswith(b"data:") or b'"model"' not in line:
            return line
        try:
            event = json.loads(line.removeprefix(b"data:"))
        except ValueError:
            return line
        if not isinstance(event, dict) or "model" not in event:
            return line
        return b"data: " + json.dumps({**event, "model": self._name}, separators=(",", ":")).encode()


def _chunks(body: bytes) -> Iterator[Any]:
    for line in body.splitlines():
        content = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and content != b"[DONE]":
            yield json.loads(content)


def _answer(text: str | None, finish_reason: str, counted: dict[str, Any]) -> ParsedCompletion:
    usage = counted.get("usage") or {}
    # A token may hold half of a surrogate pair, which the lake could not store.
    whole = (text or "").encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return ParsedCompletion(whole, finish_reason, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
