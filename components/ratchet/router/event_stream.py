"""Pass the server-sent events of an answer on as they come: none waits for the next, and the last ones can be held.

What tells arms apart is renamed on the way, in the bytes, so that all else stays as the pool wrote it. Pure.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ratchet.router.answers import Reader

# No string holds a quote without a backslash before it, so this is a name and its value wherever it stands.
MODEL = re.compile(rb'("model"\s*:\s*)"(?:[^"\\]|\\.)*"')
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
    _held: list[bytes] = field(default_factory=list)

    def feed(self, part: bytes) -> bytes:
        """Return what can be passed on now. Raises PoolSaidError, and ValueError for what is no event of the API."""
        passed: list[bytes] = []
        data = self._rest + part
        begin = 0
        for end in END_OF_EVENT.finditer(data):
            block = data[begin : end.end()]
            begin = end.end()
            self._held.append(self._read(block))
            if not self.reader.is_over:
                passed += self._held
                self._held.clear()
        self._rest = data[begin:]
        return b"".join(passed)

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
            if not event.get("choices"):
                return b""
            del event["usage"]
            block = block.replace(text, json.dumps(event, separators=(",", ":")).encode())
        return self.renamer.rename(block, event)


class Renamer:
    """Gives a JSON text other values of `model`, anywhere in it, and of `id` at its top, byte for byte else."""

    def __init__(self, model: str, own_id: str | None = None) -> None:
        self._model, self._own_id = json.dumps(model).encode(), own_id
        self._id: tuple[re.Pattern[bytes], bytes] | None = None

    def rename(self, content: bytes, value: Mapping[str, Any]) -> bytes:
        """Return `content`, which is the JSON of `value`, renamed."""
        content = MODEL.sub(lambda match: match[1] + self._model, content)
        given = value.get("id")
        if self._own_id is None or not isinstance(given, str):
            return content
        if self._id is None:
            written = rb'("id"\s*:\s*)' + re.escape(json.dumps(given, ensure_ascii=False).encode())
            self._id = re.compile(written), json.dumps(self._own_id).encode()
        pattern, own_id = self._id
        return pattern.sub(lambda match: match[1] + own_id, content)
