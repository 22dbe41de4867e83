"""The text of an answer while its tokens come: whole characters only, and nothing from a stop text on."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tokenizers.decoders import DecodeStream

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class AnswerText:
    """Decodes one answer token by token. One thread adds; others may read `text` and `settled` at any time."""

    def __init__(self, tokenizer: "Tokenizer", stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, stop
        self._stream = DecodeStream(skip_special_tokens=True)
        self._longest_stop = max(map(len, stop), default=0)
        self._is_stopped = False
        self.text = ""
        self.starts: list[int] = []
        """For each token, the length of the text before it."""

    def add(self, token: int) -> bool:
        """Add a token; return whether it completed a stop text, from which on the text is cut off."""
        before = len(self.text)
        self.starts.append(before)
        text = self.text + (self._stream.step(self._tokenizer, token) or "")
        first = max(0, before - self._longest_stop + 1)
        found = [place for stop in self._stop if (place := text.find(stop, first)) >= 0]
        self.text = text[: min(found)] if found else text
        self._is_stopped = bool(found)
        return self._is_stopped

    def finish(self, tokens: Sequence[int]) -> None:
        """Add what the last of all `tokens` began and nothing completed: a part of a character."""
        if not self._is_stopped:
            whole: str = self._tokenizer.decode(tokens, skip_special_tokens=True)
            self.text += whole[len(self.text) :]

    @property
    def settled(self) -> str:
        """The text without an end that may become a stop text."""
        return without_beginning_of(self._stop, self.text)


def without_beginning_of(marks: Iterable[str], text: str) -> str:
    """Return `text` without the longest end that is the beginning of one of `marks`."""
    longest = 0
    for mark in marks:
        lengths = range(min(len(mark) - 1, len(text)), longest, -1)
        longest = next((length for length in lengths if text.endswith(mark[:length])), longest)
    return text[: len(text) - longest]
