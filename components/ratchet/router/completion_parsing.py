"""Parse a chat completion from its JSON or its server-sent events. Pure."""

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
    return ParsedCompletion("".join(texts), ending, 0, 0)


def _chunks(body: bytes) -> Iterator[Any]:
    for line in body.splitlines():
        content = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and content != b"[DONE]":
            yield json.loads(content)


def _answer(text: str | None, finish_reason: str, counted: dict[str, Any]) -> ParsedCompletion:
    usage = counted.get("usage") or {}
    return ParsedCompletion(text or "", finish_reason, usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0))
