"""Pass the server-sent events of an answer on as they come: none waits for the next, and the last ones can be held.

What tells arms apart is renamed on the way, in the bytes, so that all else stays as the pool wrote it. Pure.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ratchet.router.answers import Reader

END_OF_EVENT = re.compile(rb"\r?\n\r?\n")


class PoolSaidError(Exception):
    """The pool ended its stream with an error; `error` is what it said."""

    def __init__(self, error: Any) -> None:
        super().__init__(str(error))
        self.error = error


@dataclass
class EventStream:
    """One answer's events on their way to the client; `reader` learns of each before it is passed on."""

    reader: Reader
    renamer: "Renamer"
    hides_usage: bool = False
    """Whether the client has not asked for the usage that the pool was asked for."""
    _rest: bytes = b""
    _passed: list[bytes] = field(default_factory=list)
    _held: list[bytes] = field(default_factory=list)

    def feed(self, part: bytes) -> bytes:
        """Return what can be passed on now. Raises PoolSaidError, and ValueError for what is no event of the API."""
        data, begin = self._rest + part, 0
        # No end of an event can begin before the last three bytes that were looked at already.
        for end in END_OF_EVENT.finditer(data, max(0, len(self._rest) - 3)):
            block, begin = data[begin : end.end()], end.end()
            self._held.append(self._read(block))
            if not self.reader.is_over:
                self._passed += self._held
                self._held.clear()
        self._rest = data[begin:]
        return self._take(self._passed)

    def unsent(self) -> bytes:
        """Return the events before the one that could not be read."""
        return self._take(self._passed) + self._take(self._held)

    @staticmethod
    def _take(blocks: list[bytes]) -> bytes:
        taken = b"".join(blocks)
        blocks.clear()
        return taken

    def ending(self) -> bytes:
        """Return what was held: the events from the one that ends the answer."""
        if self._rest:  # a last event without its blank line
            self._held.append(self._read(self._rest))
        return b"".join(self._held)

    def _read(self, block: bytes) -> bytes:
        lines = [line[5:].strip() for line in block.splitlines() if line.startswith(b"data:")]
        text = lines[0] if len(lines) == 1 else b"\n".join(lines)
        if not text or text == b"[DONE]":
            return block
        try:
            event = json.loads(text)
            if event.get("error") or event.get("type") == "error":
                raise PoolSaidError(event.get("error") or event.get("message"))
            self.reader.feed(event)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            raise ValueError(f"no event of an answer: {error!r} in {block[:200]!r}") from None
        if self.hides_usage and "usage" in event:
            if event["usage"] and not event.get("choices"):
                return b""
            del event["usage"]
            block = block.replace(text, json.dumps(event, separators=(",", ":")).encode())
        return self.renamer.rename(block, event)


class Renamer:
    """Gives the JSON of an answer another `model`, and another `id` at its top; all else stays byte for byte."""

    def __init__(self, model: str, own_id: str | None = None) -> None:
        self._model, self._own_id = model, own_id
        self._patterns: dict[tuple[str, str], re.Pattern[bytes]] = {}

    def rename(self, content: bytes, value: Mapping[str, Any]) -> bytes:
        """Return `content`, which is the JSON of `value`, renamed."""
        for envelope in (value, value.get("response"), value.get("message")):
            if isinstance(envelope, dict) and isinstance(envelope.get("model"), str):
                content = self._with(content, "model", envelope["model"], self._model)
        if self._own_id and isinstance(value.get("id"), str) and value["id"]:
            content = self._with(content, "id", value["id"], self._own_id)
        return content

    def _with(self, content: bytes, name: str, old: str, new: str) -> bytes:
        pattern = self._patterns.get((name, old))
        if pattern is None:
            # No string holds a quote without a backslash before it, so this is a name and its value.
            either = {json.dumps(old), json.dumps(old, ensure_ascii=False), json.dumps(old).replace("/", "\\/")}
            values = b"|".join(re.escape(text.encode("utf-8", "replace")) for text in sorted(either))
            pattern = self._patterns[name, old] = re.compile(rb'("%s"\s*:\s*)(?:%s)' % (name.encode(), values))
        written = json.dumps(new).encode()
        return pattern.sub(lambda match: match[1] + written, content)
