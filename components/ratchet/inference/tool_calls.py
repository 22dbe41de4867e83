"""Tools in chats: the calls in a model's text, and messages with calls as chat templates want them.

Two forms of calls are known: an object in <tool_call> tags, as Hermes and Qwen write it, and an object that is the
whole answer, as Llama 3 and constrained decoding write it. Other models' calls stay text.
"""

import json
import re
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from ratchet.inference.answer_text import without_beginning_of

TAG, CLOSING_TAG = "<tool_call>", "</tool_call>"
TAGGED = re.compile(rf"{TAG}\s*(\{{.*?\}})\s*(?:{CLOSING_TAG}|$)", re.DOTALL)
FORCED = re.compile(r'\{"name": ("(?:[^"\\]|\\.)*"), "arguments": (.*)', re.DOTALL)
SAMPLE = {"type": "function", "function": {"name": "look_up", "description": "Look up", "parameters": {}}}


class Call(NamedTuple):
    """A call of a tool; the arguments are JSON, or the beginning of it if the answer was cut off."""

    name: str
    arguments: str


def split_calls(text: str, names: Collection[str]) -> tuple[str, list[Call]]:
    """Return what the model said beside its calls, and the calls. Where one is malformed, all is text."""
    if TAG not in text:
        call = _call(text)
        return ("", [call]) if call and call.name in names else (text, [])
    calls = [_call(found) for found in TAGGED.findall(text)]
    rest = TAGGED.sub("", text).rstrip()
    whole = [call for call in calls if call]
    return (rest, whole) if whole and len(whole) == len(calls) and TAG not in rest else (text, [])


def forced_call(text: str) -> list[Call]:
    """Return the call that is the whole text by its grammar, with the arguments so far if it was cut off."""
    if call := _call(text):
        return [call]
    found = FORCED.match(text)
    return [Call(json.loads(found[1]), found[2])] if found else []


def before_calls(text: str) -> str:
    """Return the beginning of an unfinished text that is certainly no part of a call."""
    if text.lstrip().startswith("{"):
        return ""
    return without_beginning_of([TAG], text.partition(TAG)[0]).rstrip()


def _call(text: str) -> Call | None:
    try:
        found = json.loads(text)
        name, arguments = found["name"], found.get("arguments", found.get("parameters"))
        call = Call(name, json.dumps(arguments, ensure_ascii=False))
        "".join(call).encode()  # escapes can spell half of a surrogate pair, which no answer can carry
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return call if isinstance(arguments, dict) else None


def for_template(call: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's call with its arguments as an object, as templates print them."""
    function = dict(call.get("function") or {})
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError):
        arguments = None
    return {**call, "function": {**function, "arguments": arguments}} if isinstance(arguments, dict) else dict(call)


def renders_tools(tokenizer: Any) -> bool:
    """Return whether the tokenizer's chat template tells the model of the tools that it is given."""
    from jinja2 import TemplateError

    chat = [{"role": "user", "content": "Hello."}]
    plain = tokenizer.apply_chat_template(chat, tokenize=False)
    try:
        return bool(tokenizer.apply_chat_template(chat, tools=[SAMPLE], tokenize=False) != plain)
    except (TemplateError, ValueError):
        return False
