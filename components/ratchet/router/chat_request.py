"""Read the part of a request that routing, limits and recording need; the pool gets all of it, as it came.

Leniently: a field that is not as expected is not read. The pool, whose API it is, refuses what is wrong.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any, Self

from ratchet.events import Message
from ratchet.router.recorded_messages import as_message

MAX_NAME_CHARS = 256
# Recorded with each answer: what shaped it, beside the messages.
PARAMS = (
    "temperature", "top_p", "top_k", "min_p", "max_tokens", "max_completion_tokens", "max_output_tokens", "seed", "n",
    "stop", "stop_sequences", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias",
    "response_format", "tool_choice", "parallel_tool_calls", "reasoning", "reasoning_effort", "thinking", "verbosity",
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "output_config",
    "previous_response_id", "conversation", "chat_template_kwargs", "add_generation_prompt", "continue_final_message",
)  # fmt: skip
# How the requests begin that front ends make for themselves, beside the chat: nobody sees their answers, or votes.
TASKS = {
    "### Task:\n": "front_end",  # Open WebUI: titles, tags, follow-ups, queries
    "Provide a concise, 5-word-or-less title": "title",  # LibreChat
    "test from litellm": "health_check",
}


def as_name(given: Any) -> str | None:
    """Return a name of a person or a chat as it is recorded: clients send null, empty texts, numbers, whole tokens."""
    if isinstance(given, int) and not isinstance(given, bool):
        given = str(given)
    if not isinstance(given, str) or not given:
        return None
    return given if len(given) <= MAX_NAME_CHARS else f"sha256:{sha256(given.encode()).hexdigest()}"


class InvalidRequest(ValueError):
    """A request without what it takes to route or record it; `param` names the field at fault."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, kw_only=True)
class ChatRequest:
    """What the router reads of a request."""

    model: str
    messages: Sequence[Message]
    stream: bool
    user: str | None
    """Who asks, by the first name that the client gives."""
    conversation: str | None
    tenant: str | None
    """As the body names it: believed only where tenants have no keys."""
    tools: list[dict[str, Any]] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def read(
        cls,
        body: Any,
        messages_of: Callable[[dict[str, Any]], list[Message]],
        named: tuple[Sequence[str | None], Sequence[str | None]] = ((), ()),
        signed_user: str | None = None,
    ) -> Self:
        """Read a body, and the names of person and chat that came beside it; a person's signed name goes first.

        Raises InvalidRequest where there is nothing to route or record.
        """
        if not isinstance(body, dict):
            raise InvalidRequest("the body is not a JSON object")
        if not isinstance(body.get("model"), str):
            raise InvalidRequest(f"model: you must name a model; given {body.get('model')!r:.100}", param="model")
        given = body.get("metadata")
        metadata: dict[str, Any] = given if isinstance(given, dict) else {}
        names = (signed_user, body.get("safety_identifier"), body.get("user"), metadata.get("user_id"), *named[0])
        chats = (metadata.get("conversation_id"), *named[1])
        tools = body.get("tools")
        params = {name: body[name] for name in PARAMS if body.get(name) is not None}
        if isinstance(text := body.get("text"), dict) and isinstance(text.get("format"), dict):
            params["response_format"] = text["format"]  # /v1/responses' name of it
        return cls(
            model=body["model"],
            messages=messages_of(body),
            stream=body.get("stream") is True,
            user=next(filter(None, map(as_name, names)), None),
            conversation=next(filter(None, map(as_name, chats)), None),
            tenant=as_name(metadata.get("tenant")),
            tools=[tool for tool in tools if isinstance(tool, dict)] if isinstance(tools, list) and tools else None,
            params=params,
        )

    @property
    def task(self) -> str | None:
        """The kind of a front end's own request; None for a person's."""
        asked = next((one.content for one in reversed(self.messages) if one.role == "user"), "")
        return next((task for beginning, task in TASKS.items() if asked.startswith(beginning)), None)


def chat_messages(body: Mapping[str, Any]) -> list[Message]:
    """Return the messages of /v1/chat/completions. Raises InvalidRequest without any."""
    return [as_message(message) for message in given_messages(body)]


def given_messages(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the field `messages`. Raises InvalidRequest for anything but a list of one object or more."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise InvalidRequest("messages: give a list of one message or more", param="messages")
    for place, message in enumerate(messages):
        if not isinstance(message, dict):
            raise InvalidRequest(f"messages.{place}: a message is an object", param="messages")
    return messages
