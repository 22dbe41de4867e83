"""Put an answer together from what a pool sends, whole or as events, in each of the APIs that clients speak. Pure.

A reader takes the events of one answer in order. A whole answer is read as a stream of one event.
"""

import json
from dataclasses import dataclass, field
from typing import Any, Protocol

from ratchet.router.recorded_messages import text_of


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One answer: its text, and what it holds beside it. Lone halves of surrogate pairs are replaced."""

    text: str
    finish_reason: str
    tool_calls: list[dict[str, Any]] | None = None
    refusal: str | None = None
    reasoning: str | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """All choices, and the pool's token counts: None where it did not count."""

    choices: tuple[Choice, ...]
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Reader(Protocol):
    """Reads the events of one answer."""

    @property
    def is_over(self) -> bool:
        """Whether all that has begun has ended: what comes next, if anything, only counts or says goodbye."""

    def feed(self, event: dict[str, Any]) -> None:
        """Read an event. Raises KeyError, TypeError, ValueError or AttributeError for one of another shape."""

    def answer(self, ending: str | None = None) -> Answer:
        """Return what was said so far; `ending` is the finish reason of what has none.

        Raises ValueError, without an `ending`, if it is not over.
        """


@dataclass
class _Part:
    """One choice as far as it came."""

    text: list[str] = field(default_factory=list)
    refusal: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[Any, dict[str, Any]] = field(default_factory=dict)
    finish_reason: str | None = None

    def choice(self, ending: str) -> Choice:
        calls = [_well_formed(call) for call in self.calls.values()]
        return Choice(
            text=_well_formed("".join(self.text)),
            finish_reason=self.finish_reason or ending,
            tool_calls=calls or None,
            refusal=_well_formed("".join(self.refusal)) or None,
            reasoning=_well_formed("".join(self.reasoning)) or None,
        )


class _PartsReader:
    def __init__(self) -> None:
        self._parts: dict[int, _Part] = {}
        self._counts: dict[str, int | None] = {}

    @property
    def is_over(self) -> bool:
        return bool(self._parts) and all(part.finish_reason for part in self._parts.values())

    def answer(self, ending: str | None = None) -> Answer:
        if ending is None and not self.is_over:
            raise ValueError("no whole answer: it has no finish reason")
        parts = [part for _, part in sorted(self._parts.items())] or [_Part()]
        return Answer(choices=tuple(part.choice(ending or "") for part in parts), **self._counts)

    def _count(self, usage: Any, prompt: str, completion: str) -> None:
        for name, key in (("prompt_tokens", prompt), ("completion_tokens", completion)):
            counted = usage.get(key) if isinstance(usage, dict) else None
            if isinstance(counted, int) and 0 <= counted < 2**63:
                self._counts[name] = counted

    def _part(self, index: int) -> _Part:
        return self._parts.setdefault(index, _Part())


class ChatReader(_PartsReader):
    """/v1/chat/completions: a completion, or its chunks."""

    def feed(self, event: dict[str, Any]) -> None:
        self._count(event.get("usage"), "prompt_tokens", "completion_tokens")
        for place, choice in enumerate(event.get("choices") or ()):
            part = self._part(choice.get("index", place))
            whole = choice.get("message")
            said = whole or choice.get("delta") or {}
            part.text.append(_text(said.get("content")))
            part.refusal.append(_text(said.get("refusal")))
            part.reasoning.append(_text(said.get("reasoning_content") or said.get("reasoning")))
            for number, call in enumerate(said.get("tool_calls") or ()):
                _add_call(part.calls, number if whole else None, call)
            if called := said.get("function_call"):  # OpenAI's older form of a call
                _add_call(part.calls, 0, {"type": "function", "function": called})
            if reason := choice.get("finish_reason"):
                part.finish_reason = str(reason)


def _text(given: Any) -> str:
    """Return what a pool sends for a text: some send its parts."""
    return given if isinstance(given, str) else text_of(given) if isinstance(given, list) else ""


def _add_call(calls: dict[Any, dict[str, Any]], place: int | None, delta: dict[str, Any]) -> None:
    """Add a call, or a part of one: to the call of its index, of its id, or the last. Another id is another call."""
    own_id = delta.get("id") or None
    key = delta.get("index", place)
    if key is None:
        key = own_id or next(reversed(calls), 0)
    if own_id and own_id != calls.get(key, {}).get("id", own_id):
        key = (key, own_id)
    known = calls.setdefault(key, {"function": {"name": "", "arguments": ""}})
    known |= {name: value for name, value in delta.items() if name not in ("index", "function") and value is not None}
    for name, value in (delta.get("function") or {}).items():
        written = json.dumps(value) if name == "arguments" and isinstance(value, dict) else value
        known["function"][name] = known["function"].get(name, "") + written if isinstance(written, str) else written


RESPONSE_ENDS = ("response.completed", "response.incomplete", "response.failed")


class ResponsesReader(_PartsReader):
    """/v1/responses: a response, or its events, of which the last holds the whole response."""

    def feed(self, event: dict[str, Any]) -> None:
        kind = event.get("type", "")
        if kind in RESPONSE_ENDS or "output" in event:
            self._read_whole(event.get("response", event))
        elif kind == "response.output_text.delta":
            self._part(0).text.append(event["delta"])
        elif kind == "response.refusal.delta":
            self._part(0).refusal.append(event["delta"])
        elif kind.startswith("response.reasoning") and kind.endswith("text.delta"):
            self._part(0).reasoning.append(event["delta"])

    def _read_whole(self, response: dict[str, Any]) -> None:
        self._count(response.get("usage"), "input_tokens", "output_tokens")
        part = self._parts[0] = _Part()
        for item in response["output"]:
            if item["type"] == "message":
                part.text.append(text_of(item["content"]))
                part.refusal += [content.get("refusal", "") for content in item["content"]]
            elif item["type"] == "reasoning":
                for content in [*(item.get("summary") or ()), *(item.get("content") or ())]:
                    part.reasoning.append(content.get("text", ""))
            else:  # of a function, or of a tool that the server runs by itself
                called = {"name": item.get("name", item["type"]), "arguments": item.get("arguments", "")}
                call = {"id": item.get("call_id") or item.get("id"), "type": "function", "function": called}
                part.calls[len(part.calls)] = call
        why = (response.get("incomplete_details") or {}).get("reason")
        ends = {"max_output_tokens": "length", "content_filter": "content_filter"}
        part.finish_reason = ends.get(str(why), "tool_calls" if part.calls else "stop")
        status = response.get("status")
        if status not in (None, "completed") and not why:
            part.finish_reason = status


STOP_REASONS = {
    "end_turn": "stop", "stop_sequence": "stop", "max_tokens": "length", "tool_use": "tool_calls",
    "refusal": "content_filter",
}  # fmt: skip


class MessagesReader(_PartsReader):
    """/v1/messages: a message in Anthropic's form, or its events."""

    def feed(self, event: dict[str, Any]) -> None:
        match event.get("type"):
            case "message":
                self._begin(event)
                for index, block in enumerate(event["content"]):
                    self._add(index, block)
                self._end(event.get("stop_reason"))
            case "message_start":
                self._begin(event["message"])
            case "content_block_start":
                self._add(event["index"], event["content_block"])
            case "content_block_delta":
                self._add(event["index"], event["delta"])
            case "message_delta":
                self._count(event.get("usage"), "input_tokens", "output_tokens")
                self._end(event["delta"].get("stop_reason"))

    def _begin(self, message: dict[str, Any]) -> None:
        self._part(0)
        self._count(message.get("usage"), "input_tokens", "output_tokens")

    def _add(self, index: int, block: dict[str, Any]) -> None:
        part = self._part(0)
        if block.get("type") == "text" and any(part.text):
            part.text.append("\n")  # another block, as the next turn's prompt joins them
        part.text.append(block.get("text") or "")
        part.reasoning.append(block.get("thinking") or "")
        if block.get("type") == "tool_use":
            arguments = json.dumps(block["input"]) if block.get("input") else ""
            called = {"name": block["name"], "arguments": arguments}
            part.calls[index] = {"id": block.get("id"), "type": "function", "function": called}
        elif "partial_json" in block and index in part.calls:  # else of a tool that the server runs by itself
            part.calls[index]["function"]["arguments"] += block["partial_json"]

    def _end(self, reason: str | None) -> None:
        if reason:
            self._part(0).finish_reason = STOP_REASONS.get(reason, reason)


def _well_formed(value: Any) -> Any:
    """Return the value without halves of surrogate pairs, which a token may hold and the lake could not store."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {name: _well_formed(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_well_formed(inner) for inner in value]
    return value
