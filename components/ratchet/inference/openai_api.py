"""Chat completions in OpenAI's format: the model server's request, and its answer, whole or streamed."""

import json
import secrets
import time
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from ratchet.inference.batching import GenerationRow

DEFAULT_MAX_TOKENS = 256  # OpenAI's default, the rest of the context, takes minutes on a CPU

# Of OpenAI's and vLLM's fields: what does not bear on the answer, and the values of the others that ask for nothing.
# Whatever is in neither, or has another value, is refused: it would be ignored in silence, where vLLM honours it.
HARMLESS = frozenset({
    "metadata", "parallel_tool_calls", "priority", "prompt_cache_key", "request_id", "safety_identifier",
    "service_tier", "store", "user",
})  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "use_beam_search": (False,), "top_p": (1,), "top_k": (0, -1), "min_p": (0,),
    "stop": ([],), "stop_token_ids": ([],), "ignore_eos": (False,), "min_tokens": (0,), "bad_words": ([],),
    "repetition_penalty": (1,), "length_penalty": (1,), "frequency_penalty": (0,), "presence_penalty": (0,),
    "logit_bias": ({},), "logprobs": (False,), "top_logprobs": (0,), "tools": ([],), "tool_choice": ("none", "auto"),
    "response_format": ({"type": "text"},), "echo": (False,), "add_generation_prompt": (True,),
    "continue_final_message": (False,), "skip_special_tokens": (True,), "return_token_ids": (False,),
}  # fmt: skip


class TextPart(BaseModel):
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[TextPart] | None = None

    def for_template(self) -> dict[str, Any]:
        """Return the message with its content as one text, parts on lines of their own, as vLLM joins them."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(part.text for part in content or ())
        return {**self.model_dump(exclude_none=True), "content": text}


class StreamOptions(BaseModel):
    include_usage: bool = False
    continuous_usage_stats: Literal[False] = False
    include_obfuscation: Literal[False] = False


class ChatRequest(BaseModel):
    """OpenAI's chat completion request; sampling is from the 50 likeliest tokens."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int = Field(
        DEFAULT_MAX_TOKENS, gt=0, validation_alias=AliasChoices("max_tokens", "max_completion_tokens")
    )
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        # Clients send the options that nobody set on as null.
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name not in HARMLESS and value not in NEUTRAL.get(name, ()):
                raise ValueError(f"{name:.40} is not supported by this server; leave it out")
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
        self._counts_usage = bool(request.stream_options and request.stream_options.include_usage)

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
