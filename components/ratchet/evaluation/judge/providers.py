"""Build requests for the two common endpoint styles, and read their replies."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, Field

from ratchet.evaluation.judge.prompts import INSTRUCTIONS, Question

MAX_REPLY_TOKENS = 64  # a verdict is ten; a model that explains itself is cut off, and is unreadable anyway
ANTHROPIC_VERSION = "2023-06-01"
CACHED = {"cache_control": {"type": "ephemeral"}}


class Usage(BaseModel):
    """The tokens of one request, as the provider counts them; cache reads and writes count as input."""

    input_tokens: int = Field(ge=0)
    output_tokens: int = Field(ge=0)


@dataclass(frozen=True)
class Reply:
    """A judge's reply; `usage` is None if the endpoint does not report it."""

    text: str
    usage: Usage | None


@dataclass(frozen=True)
class Provider:
    """An endpoint style: path below the URL, headers for a key, a request's body, and the reader of a response's JSON.

    `read` raises KeyError, IndexError, TypeError or ValueError for a malformed response.
    """

    path: str
    headers: Callable[[str], Mapping[str, str]]
    body: Callable[[str, Question], Mapping[str, Any]]
    read: Callable[[Any], Reply]


def _openai_body(model: str, question: Question) -> dict[str, Any]:
    """Return the body with the part that both orders share first: these providers cache a long common prefix."""
    return {
        "model": model,
        "temperature": 0,
        "max_tokens": MAX_REPLY_TOKENS,
        "messages": [
            {"role": "system", "content": INSTRUCTIONS},
            {"role": "user", "content": f"{question.conversation}\n\n{question.answers}"},
        ],
    }


def _openai_read(body: Any) -> Reply:
    used = body.get("usage")
    usage = used and Usage(input_tokens=used["prompt_tokens"], output_tokens=used["completion_tokens"])
    return Reply(str(body["choices"][0]["message"]["content"]), usage or None)


def _anthropic_body(model: str, question: Question) -> dict[str, Any]:
    return {
        "model": model,
        "temperature": 0,
        "max_tokens": MAX_REPLY_TOKENS,
        "system": [{"type": "text", "text": INSTRUCTIONS, **CACHED}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": question.conversation, **CACHED},
                    {"type": "text", "text": question.answers},
                ],
            }
        ],
    }


def _anthropic_read(body: Any) -> Reply:
    used = body.get("usage")
    kinds = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    usage = used and Usage(input_tokens=sum(used.get(kind) or 0 for kind in kinds), output_tokens=used["output_tokens"])
    return Reply("".join(part["text"] for part in body["content"] if part["type"] == "text"), usage or None)


PROVIDERS = {
    "openai": Provider(
        "/chat/completions", lambda key: {"authorization": f"Bearer {key}"} if key else {}, _openai_body, _openai_read
    ),
    "anthropic": Provider(
        "/v1/messages",
        lambda key: {"x-api-key": key, "anthropic-version": ANTHROPIC_VERSION},
        _anthropic_body,
        _anthropic_read,
    ),
}
