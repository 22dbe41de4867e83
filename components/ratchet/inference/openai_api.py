"""A chat completion request in OpenAI's format: what the model server takes, and what it refuses, in OpenAI's words."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from ratchet.http_limits import RequestRefused
from ratchet.inference.tool_calls import for_template

DEFAULT_MAX_TOKENS = 256  # OpenAI's default, the rest of the context, takes minutes on a CPU
MAX_CHOICES = 128
MAX_LIKELIEST = 20

# Of OpenAI's and vLLM's fields: what does not bear on the answer, and the values of the others that ask for nothing.
# Whatever is in neither, or has another value, is refused: it would be ignored in silence, where vLLM honours it.
HARMLESS = frozenset({
    "metadata", "priority", "prompt_cache_key", "prompt_cache_retention", "request_id", "safety_identifier",
    "service_tier", "store", "user",
})  # fmt: skip
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,), "use_beam_search": (False,), "top_k": (0, -1), "min_p": (0,), "stop_token_ids": ([],),
    "ignore_eos": (False,), "min_tokens": (0,), "bad_words": ([],), "repetition_penalty": (1,), "length_penalty": (1,),
    "echo": (False,), "skip_special_tokens": (True,), "return_token_ids": (False,), "modalities": (["text"],),
    "functions": ([],),
}  # fmt: skip


def invalid(message: str, param: str, code: str | None = None) -> RequestRefused:
    return RequestRefused(400, message, param=param, code=code)


class ChatMessage(BaseModel):
    model_config = ConfigDict(extra="allow")

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    def for_template(self) -> dict[str, Any]:
        """Return the message with its content as one text, parts on lines of their own, as vLLM joins them."""
        content = self.content
        text = content if isinstance(content, str) else "\n".join(part["text"] for part in content or ())
        given = self.model_dump(exclude_none=True, exclude={"tool_calls"})
        calls = {"tool_calls": [for_template(call) for call in self.tool_calls]} if self.tool_calls else {}
        # OpenAI's newer name of the same role, which no template knows.
        return {**given, "role": "system" if self.role == "developer" else self.role, "content": text, **calls}


class StreamOptions(BaseModel):
    include_usage: bool | None = False
    continuous_usage_stats: Literal[False] | None = False
    include_obfuscation: Literal[False] | None = False


class Function(BaseModel):
    name: str = Field(min_length=1)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None

    @property
    def arguments(self) -> dict[str, Any]:
        """The schema of the arguments, which are always an object."""
        nothing = {"properties": {}, "additionalProperties": False}
        return {"type": "object", **(self.parameters or nothing)}


class Tool(BaseModel):
    type: Literal["function"]
    function: Function


class FunctionName(BaseModel):
    name: str


class NamedTool(BaseModel):
    type: Literal["function"]
    function: FunctionName


class JsonSchema(BaseModel):
    name: str
    json_schema: dict[str, Any] | None = Field(None, alias="schema")


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


def as_list(given: Any) -> Any:
    return [given] if isinstance(given, str) else given


Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
StopText = Annotated[str, Field(min_length=1)]


class ChatRequest(BaseModel):
    """OpenAI's chat completion request; sampling is from the 50 likeliest tokens."""

    model_config = ConfigDict(extra="allow")

    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    max_tokens: int | None = Field(None, gt=0)
    max_completion_tokens: int | None = Field(None, gt=0)
    temperature: float = Field(1.0, ge=0, le=2, allow_inf_nan=False)
    top_p: float = Field(1.0, ge=0, le=1)
    frequency_penalty: float = Field(0.0, ge=-2, le=2)
    presence_penalty: float = Field(0.0, ge=-2, le=2)
    logit_bias: dict[int, Bias] = Field(default_factory=dict)
    seed: int | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    stop: Annotated[list[StopText], BeforeValidator(as_list)] = Field(default_factory=list, max_length=4)
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MAX_LIKELIEST)
    tools: list[Tool] = Field(default_factory=list)
    tool_choice: Literal["none", "auto", "required"] | NamedTool = "auto"
    parallel_tool_calls: bool = True
    response_format: ResponseFormat | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    stream: bool = False
    stream_options: StreamOptions | None = None

    @property
    def limit(self) -> int | None:
        """The most tokens of an answer, if the request says; `max_tokens` is the older name."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def offered(self) -> list[Tool]:
        """The tools that the model may call now."""
        if isinstance(self.tool_choice, NamedTool):
            return [tool for tool in self.tools if tool.function.name == self.tool_choice.function.name]
        return [] if self.tool_choice == "none" else self.tools

    @property
    def must_call(self) -> bool:
        return self.tool_choice not in ("none", "auto")

    @property
    def answer_schema(self) -> dict[str, Any] | None:
        """The schema that an answer has to follow, if any."""
        if self.response_format is None or self.response_format.type == "text":
            return None
        named = self.response_format.json_schema
        return (named.json_schema if named else None) or {"type": "object"}

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, given: Any) -> Any:
        # Clients send the options that nobody set on as null.
        return {name: value for name, value in given.items() if value is not None} if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> Self:
        for name, value in (self.model_extra or {}).items():
            if name not in HARMLESS and value not in NEUTRAL.get(name, ()):
                raise invalid(f"{name:.40} is not supported by this server; leave it out", f"{name:.40}")
        return self

    @model_validator(mode="after")
    def _parts_are_text(self) -> Self:
        for number, message in enumerate(self.messages):
            for place, part in enumerate(message.content if isinstance(message.content, list) else ()):
                if part.get("type") != "text" or not isinstance(part.get("text"), str):
                    raise invalid(
                        f"messages.{number}.content.{place}: invalid content type {part.get('type')!r:.40}; this model "
                        "takes text only",
                        "messages",
                    )
        return self

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs is only allowed when logprobs is true", "top_logprobs")
        for function in (tool.function for tool in self.tools):
            if function.arguments["type"] != "object":
                raise invalid(f"tools: the parameters of {function.name:.64} must be of type object", "tools")
        if self.must_call and not self.tools:
            raise invalid("tool_choice is only allowed when tools are specified", "tool_choice")
        if self.must_call and not self.offered:
            raise invalid("tool_choice names a function that is not among the tools", "tool_choice")
        named = self.response_format
        if named and named.type == "json_schema" and named.json_schema is None:
            raise invalid("response_format of type json_schema needs json_schema", "response_format")
        return self
