"""Chat completions in OpenAI's format: the model server's request, and its answer, whole or streamed."""

import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

from ratchet.events import Message

if TYPE_CHECKING:
    from ratchet.inference.batching import GenerationRow

DEFAULT_MAX_TOKENS = 256  # OpenAI's default, the rest of the context, takes minutes on a CPU
UNSUPPORTED = {
    "n": 1, "top_p": 1, "stop": None, "tools": None, "response_format": None, "logprobs": False,
    "frequency_penalty": 0, "presence_penalty": 0, "logit_bias": None,
}  # fmt: skip  # name to its neutral value; any other is refused, since it would be ignored silently


class ChatRequest(BaseModel):
    """OpenAI's chat completion request; sampling is from the 50 likeliest tokens."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[Message] = Field(min_length=1)
    max_tokens: int = Field(
        DEFAULT_MAX_TOKENS, gt=0, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stream: bool = False

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name, harmless in UNSUPPORTED.items():
            if (self.model_extra or {}).get(name) not in (None, harmless):
                raise ValueError(f"{name} is not supported by this server; leave it out")
        return self


def completion(request: ChatRequest, row: "GenerationRow", text: str) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "logprobs": None,
        "finish_reason": row.finish_reason,
    }
    return {**_head(request, "chat.completion"), "choices": [choice], "usage": _usage(row)}


class Stream:
    """One streamed completion as server-sent events: role, text pieces, finish reason, and usage if requested."""

    def __init__(self, request: ChatRequest) -> None:
        self._head = _head(request, "chat.completion.chunk")
        options = (request.model_extra or {}).get("stream_options") or {}
        self._counts_usage = bool(options.get("include_usage"))

    def start(self) -> str:
        return self._chunk({"role": "assistant", "content": ""})

    def text(self, text: str) -> str:
        return self._chunk({"content": text})

    def end(self, row: "GenerationRow") -> str:
        last = self._chunk({}, row.finish_reason)
        usage = _event({**self._head, "choices": [], "usage": _usage(row)}) if self._counts_usage else ""
        return f"{last}{usage}data: [DONE]\n\n"

    def _chunk(self, delta: dict[str, str], reason: str | None = None) -> str:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**self._head, "choices": [choice]})


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content)}\n\n"


def _head(request: ChatRequest, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{secrets.token_hex(12)}",
        "object": kind,
        "created": int(time.time()),
        "model": request.model,
    }


def _usage(row: "GenerationRow") -> dict[str, int]:
    return {
        "prompt_tokens": len(row.prompt),
        "completion_tokens": len(row.tokens),
        "total_tokens": len(row.prompt) + len(row.tokens),
    }
