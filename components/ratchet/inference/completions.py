"""Chat completions in OpenAI's format: one or several choices, whole or streamed, with calls and log-probabilities."""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ratchet.inference.tool_calls import Call, before_calls, forced_call, split_calls

if TYPE_CHECKING:
    from ratchet.inference.answer_text import AnswerText
    from ratchet.inference.batching import GenerationRow
    from ratchet.inference.openai_api import ChatRequest
    from ratchet.inference.sampling import TokenLogprob

TokenBytes = Callable[[int], bytes]


class Choice:
    """One answer of a completion, and how much of it the client of a stream has got."""

    def __init__(
        self, index: int, request: "ChatRequest", row: "GenerationRow", text: "AnswerText", token_bytes: TokenBytes
    ) -> None:
        self.row = row
        self._index, self._request, self._text, self._token_bytes = index, request, text, token_bytes
        self._tools = {tool.function.name for tool in request.offered}
        self._num_chars_sent, self._num_tokens_sent = 0, 0
        self.is_sent = False

    def whole(self) -> dict[str, Any]:
        """Return the choice of a finished row."""
        text, calls = self._parts()
        message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
        if calls:
            message |= {"content": text or None, "tool_calls": [_call(call) for call in calls]}
        return {
            "index": self._index,
            "message": message,
            "logprobs": self._logprobs(len(text)),
            "finish_reason": self._reason(calls),
        }

    def start(self) -> dict[str, Any]:
        return self._delta({"role": "assistant", "content": ""})

    def more(self) -> Iterator[dict[str, Any]]:
        """Yield the stream's choices for what the row has gained; for a finished row, its end."""
        # Asked first: what is finished has all of its text.
        is_finished = self.row.finish_reason is not None
        calls: list[Call] = []
        if is_finished:
            text, calls = self._parts()
        elif self._request.must_call:
            text = ""
        else:
            text = before_calls(self._text.settled) if self._tools else self._text.settled
        if len(text) > self._num_chars_sent:
            yield self._delta({"content": text[self._num_chars_sent :]}, self._logprobs(len(text)))
            self._num_chars_sent = len(text)
        if calls:
            yield self._delta({"tool_calls": [{"index": place, **_call(call)} for place, call in enumerate(calls)]})
        if is_finished:
            yield self._delta({}, reason=self._reason(calls))
            self.is_sent = True

    def _parts(self) -> tuple[str, list[Call]]:
        text = self._text.text
        if self._request.must_call:
            return "", forced_call(text)
        if not self._tools:
            return text, []
        rest, calls = split_calls(text, self._tools)
        return rest, calls if self._request.parallel_tool_calls else calls[:1]

    def _reason(self, calls: list[Call]) -> str | None:
        return "tool_calls" if calls and self.row.finish_reason == "stop" else self.row.finish_reason

    def _logprobs(self, num_chars: int) -> dict[str, Any] | None:
        """Return the log-probabilities of the tokens of the text so far that were not returned before.

        A token that ends the answer, or follows a stop text, is not of the text.
        """
        if self.row.top_logprobs is None:
            return None
        first = self._num_tokens_sent
        starts = self._text.starts
        while self._num_tokens_sent < len(starts) and starts[self._num_tokens_sent] < num_chars:
            self._num_tokens_sent += 1
        tokens = self.row.logprobs[first : self._num_tokens_sent]
        return {"content": [self._token(token) for token in tokens], "refusal": None}

    def _token(self, chosen: "TokenLogprob") -> dict[str, Any]:
        likeliest = [self._named(token, logprob) for token, logprob in chosen.likeliest]
        return {**self._named(chosen.token, chosen.logprob), "top_logprobs": likeliest}

    def _named(self, token: int, logprob: float) -> dict[str, Any]:
        content = self._token_bytes(token)
        # OpenAI's number for what is all but impossible; JSON has no infinity.
        return {"token": content.decode(errors="replace"), "logprob": max(logprob, -9999.0), "bytes": [*content]}

    def _delta(
        self, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, reason: str | None = None
    ) -> dict[str, Any]:
        return {"index": self._index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}


class Completion:
    """The choices under one id. A stream is `start`, `more` after each step, and `end`: server-sent events."""

    def __init__(self, request: "ChatRequest", choices: Sequence[Choice]) -> None:
        self.choices = choices
        self._head = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": request.model,
        }
        self._counts_usage = bool(request.stream_options and request.stream_options.include_usage)

    @property
    def rows(self) -> list["GenerationRow"]:
        return [choice.row for choice in self.choices]

    def whole(self) -> dict[str, Any]:
        choices = [choice.whole() for choice in self.choices]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage()}

    def start(self) -> str:
        return self._chunks(choice.start() for choice in self.choices)

    def more(self) -> str:
        """Return the events of what is new, if anything is."""
        return self._chunks(part for choice in self.choices if not choice.is_sent for part in choice.more())

    def end(self) -> str:
        usage = self._event([], self._usage()) if self._counts_usage else ""
        return f"{usage}data: [DONE]\n\n"

    def _chunks(self, parts: Iterator[dict[str, Any]]) -> str:
        return "".join(self._event([part]) for part in parts)

    def _event(self, choices: list[dict[str, Any]], usage: dict[str, int] | None = None) -> str:
        counted = {"usage": usage} if self._counts_usage else {}
        return (
            f"data: {json.dumps({**self._head, 'object': 'chat.completion.chunk', 'choices': choices, **counted})}\n\n"
        )

    def _usage(self) -> dict[str, int]:
        prompt, answers = len(self.rows[0].prompt), sum(len(row.tokens) for row in self.rows)
        return {"prompt_tokens": prompt, "completion_tokens": answers, "total_tokens": prompt + answers}


def _call(call: Call) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}
