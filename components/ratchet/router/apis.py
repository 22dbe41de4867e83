"""The APIs whose answers are recorded: where each is, how its requests are read, and how its answers are."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ratchet.events import Message
from ratchet.router.answers import ChatReader, MessagesReader, Reader, ResponsesReader
from ratchet.router.chat_request import InvalidRequest, chat_messages, given_messages
from ratchet.router.recorded_messages import as_message


@dataclass(frozen=True)
class Api:
    """One of OpenAI's or Anthropic's APIs."""

    path: str
    messages_of: Callable[[dict[str, Any]], list[Message]]
    """Returns the prompt of a body. Raises InvalidRequest without one."""
    reader: Callable[[], Reader]
    names_answers: bool = False
    """Whether the answer's id may be the router's: no later request gives it to the pool again."""
    asks_for_usage: bool = False
    """Whether streams count tokens only where `stream_options.include_usage` asks for it."""
    error_event: Callable[[dict[str, Any]], bytes] = lambda error: plain_error(error)
    """Writes an error as the last event of a stream."""


def response_messages(body: Mapping[str, Any]) -> list[Message]:
    """Return the prompt of /v1/responses: instructions, and the items of the input."""
    given = body.get("input")
    if not given or not isinstance(given, str | list):
        raise InvalidRequest("input: give a text, or a list of one item or more", param="input")
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    # What the model thought before is replayed to the server, and no part of what was said.
    messages = [_of_item(item) for item in items if isinstance(item, dict) and item.get("type") != "reasoning"]
    instructions = body.get("instructions")
    return [Message(role="system", content=instructions), *messages] if isinstance(instructions, str) else messages


def _of_item(item: dict[str, Any]) -> Message:
    match item.get("type", "message"):
        case "message":
            return as_message({name: item[name] for name in ("role", "content") if name in item})
        case "function_call":
            called = {"name": item.get("name"), "arguments": item.get("arguments")}
            call = {"id": item.get("call_id"), "type": "function", "function": called}
            return as_message({"role": "assistant", "content": "", "tool_calls": [call]})
        case "function_call_output":
            output = item.get("output")
            text = output if isinstance(output, str | list) else json.dumps(output)
            return as_message({"role": "tool", "content": text, "tool_call_id": item.get("call_id")})
        case _:  # what tools of the server did: kept as a part that is no text
            return as_message({"role": "assistant", "content": [item]})


def anthropic_messages(body: Mapping[str, Any]) -> list[Message]:
    """Return the prompt of /v1/messages: the system's text, then the messages."""
    messages = [message for one in given_messages(body) for message in _as_openai_writes_it(one)]
    system = body.get("system")
    return [as_message({"role": "system", "content": system}), *messages] if system else messages


def _as_openai_writes_it(given: dict[str, Any]) -> list[Message]:
    """Return a message with its blocks of tool use as OpenAI writes them, so that a chat is the same in each API."""
    blocks = given.get("content")
    if not isinstance(blocks, list):
        return [as_message(given)]
    calls, results, rest = [], [], []
    for block in blocks:
        match block.get("type") if isinstance(block, dict) else None:
            case "tool_use":
                called = {"name": block.get("name"), "arguments": json.dumps(block.get("input"))}
                calls.append({"id": block.get("id"), "type": "function", "function": called})
            case "tool_result":
                result = {"role": "tool", "content": block.get("content"), "tool_call_id": block.get("tool_use_id")}
                results.append(as_message(result))
            case "thinking" | "redacted_thinking":
                pass  # no part of what was said
            case _:
                rest.append(block)
    if not rest and not calls:
        return results
    own = {"role": given.get("role"), "content": rest, **({"tool_calls": calls} if calls else {})}
    return [*results, as_message(own)]


def plain_error(error: dict[str, Any]) -> bytes:
    """Return an error as the event with which OpenAI ends a stream."""
    return b"data: " + json.dumps(error).encode() + b"\n\n"


def typed_error(error: dict[str, Any]) -> bytes:
    """Return an error as the event with which Anthropic ends a stream."""
    return b"event: error\ndata: " + json.dumps({"type": "error", **error}).encode() + b"\n\n"


CHAT = Api("/v1/chat/completions", chat_messages, ChatReader, names_answers=True, asks_for_usage=True)
RESPONSES = Api("/v1/responses", response_messages, ResponsesReader)
MESSAGES = Api("/v1/messages", anthropic_messages, MessagesReader, error_event=typed_error)
RECORDED = (CHAT, RESPONSES, MESSAGES)
PASSED_ON = ("/v1/completions", "/v1/embeddings")
"""What is passed on and not recorded: nobody votes on it."""
