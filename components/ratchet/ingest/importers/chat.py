"""Parse other systems' prompts to messages, and their answers to text.

Supported are a plain text; OpenAI's, Anthropic's and LangChain's messages, their contents as text or as parts;
an object that holds such messages under a usual name; an object whose only text is the prompt or the answer; and any
of these as JSON in a text. Images, tool calls and objects with several texts are refused, not guessed.
"""

from typing import Any

from pydantic_core import from_json

from ratchet.ingest.importers.intake import Unmappable

Messages = list[dict[str, str]]
ROLES = {
    "user": "user", "human": "user", "HumanMessage": "user", "prompter": "user",
    "assistant": "assistant", "ai": "assistant", "AIMessage": "assistant", "AIMessageChunk": "assistant",
    "model": "assistant", "system": "system", "SystemMessage": "system", "developer": "system",
    "tool": "tool", "ToolMessage": "tool", "function": "tool",
}  # fmt: skip
TEXT_PARTS = ("text", "input_text", "output_text")
THOUGHTS = ("reasoning", "thinking", "thought", "redacted_thinking")  # not part of an answer
PROMPTS = ("messages", "input", "inputs", "prompt", "question", "query")
ANSWERS = ("choices", "generations", "message", "messages", "output", "outputs", "content", "answer", "response")
MAX_DEPTH = 8


def prompt_of(value: Any, depth: int = 0) -> Messages:
    """Return the messages of a prompt. Raises Unmappable (no_text) if there are none with text."""
    inner = unpacked(value)
    if isinstance(value, str) and not isinstance(inner, dict) and not _is_chat(inner):
        return _with_text([{"role": "user", "content": value}])
    value = inner
    if isinstance(value, list):
        inner = value[0] if len(value) == 1 and isinstance(value[0], list) else value
        return _with_text([message_of(message) for message in inner])
    if isinstance(value, dict) and depth < MAX_DEPTH:
        if _is_message(value):
            return _with_text([message_of(value)])
        field = next((name for name in PROMPTS if value.get(name)), None)
        if field is None:
            return _with_text([{"role": "user", "content": _only_text(value)}])
        system = [{"role": "system", "content": text_of(value["system"])}] if value.get("system") else []
        return [*system, *prompt_of(value[field], depth + 1)]
    raise Unmappable("no_text", "the prompt is neither a text nor messages")


def answer_of(value: Any, depth: int = 0) -> str:
    """Return the text of an answer, or of the last of several messages. Raises Unmappable (no_text) without one.

    JSON text stays as it is, unless it holds messages: a model may answer in JSON.
    """
    if isinstance(value, str):
        inner = unpacked(value)
        return answer_of(inner, depth + 1) if _is_chat(inner) and depth < MAX_DEPTH else _non_blank(value)
    if isinstance(value, list) and value and depth < MAX_DEPTH:
        if all(_is_part(part) for part in value):
            return _non_blank(text_of(value))
        return answer_of(value[-1], depth + 1)
    if isinstance(value, dict) and depth < MAX_DEPTH:
        if _is_message(value):
            return _non_blank(message_of(value)["content"])
        if isinstance(value.get("text"), str):
            return _non_blank(value["text"])
        field = next((name for name in ANSWERS if value.get(name)), None)
        return _non_blank(_only_text(value)) if field is None else answer_of(value[field], depth + 1)
    raise Unmappable("no_text", "the answer holds no text")


def message_of(value: Any) -> dict[str, str]:
    """Return one message with a known role and its parts joined. Raises Unmappable (no_text) for any other."""
    if not isinstance(value, dict):
        raise Unmappable("no_text", "a message is no object")
    if isinstance(value.get("message"), dict):  # OpenInference
        value = value["message"]
    kind = value["id"][-1] if isinstance(value.get("id"), list) and value["id"] else value.get("type")
    inner = value.get("kwargs") or value.get("data")  # LangChain, in its two ways of saving
    value = inner if isinstance(inner, dict) else value
    name = value.get("role", kind)
    role = ROLES.get(name) if isinstance(name, str) else None
    if role is None:
        raise Unmappable("no_text", "a message of no known role")
    return {"role": role, "content": text_of(value.get("content", value.get("parts", value.get("contents"))))}


def text_of(content: Any) -> str:
    """Return the text of a message's content; parts are joined by line ends."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "\n".join(text for part in parts if (text := _part_text(part)) is not None)


def unpacked(value: Any) -> Any:
    """Return the value, parsed if it is the text of a JSON object or array."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            return from_json(value)
        except ValueError:
            return value
    return value


def _part_text(part: Any) -> str | None:
    if isinstance(part, str):
        return part
    if isinstance(part, dict):
        part = part.get("message_content", part)  # OpenInference
        kind = part.get("type", "text") if isinstance(part, dict) else None
        if kind in THOUGHTS:
            return None
        text = next((part[name] for name in ("text", "content", "value") if name in part), None) if kind else None
        if kind in TEXT_PARTS and isinstance(text, str):
            return text
    raise Unmappable("no_text", "a message holds something else than text")


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and "role" not in value and value.get("type") in (*TEXT_PARTS, *THOUGHTS)


def _is_message(value: dict[str, Any]) -> bool:
    return "role" in value or isinstance(value.get("kwargs"), dict) or value.get("type") in ("human", "ai", "system")


def _is_chat(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(item, dict) and (_is_part(item) or _is_message(item)) for item in value)
    return isinstance(value, dict) and (_is_message(value) or isinstance(value.get("choices"), list))


def _only_text(value: dict[str, Any]) -> str:
    texts = [text for text in value.values() if isinstance(text, str) and text.strip()]
    if len(texts) != 1:
        raise Unmappable("no_text", f"of its {len(value)} fields {len(texts)} are texts: which one was meant?")
    return texts[0]


def _with_text(messages: Messages) -> Messages:
    if not any(message["content"].strip() for message in messages):
        raise Unmappable("no_text", "the prompt is empty")
    return messages


def _non_blank(text: str) -> str:
    if not text.strip():
        raise Unmappable("no_text", "the answer is empty")
    return text
