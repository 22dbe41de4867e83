"""Let a row say nothing but what a grammar allows: JSON of a schema, or a call of one of the offered tools.

llguidance says which tokens may come next. Spaces are where Python's json puts them: small models would otherwise fill
their answer with blanks, which every JSON grammar allows.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from llguidance import LLMatcher
from llguidance.hf import from_tokenizer

from ratchet.inference.tool_calls import CLOSING_TAG, TAG

SPACING = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


class Constraint:
    """The state of one row in its grammar."""

    def __init__(self, matcher: LLMatcher) -> None:
        self._matcher = matcher

    def copy(self) -> "Constraint":
        return Constraint(self._matcher.deep_copy())

    def forbidden(self, size: int) -> torch.Tensor:
        """Return a mask over `size` tokens: those that may not come next."""
        # A byte for each token: 0 for those that the grammar does not allow.
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)[:size]
        return allowed == 0

    def add(self, token: int) -> bool:
        """Take the token that was chosen; return whether nothing can follow."""
        self._matcher.consume_token(token)
        return self._matcher.is_stopped()

    @property
    def is_broken(self) -> bool:
        """Whether the grammar can be followed no longer: its states became too many."""
        return self._matcher.is_error()


class Vocabulary:
    """A model's tokens as bytes. Takes 0.4 s to build for 49,000 tokens. Raises ValueError for a slow tokenizer."""

    def __init__(self, tokenizer: Any, size: int, stop_tokens: Iterable[int]) -> None:
        self._tokens = from_tokenizer(tokenizer, n_vocab=max(size, len(tokenizer)), eos_token=sorted(stop_tokens))

    def bytes_of(self, token: int) -> bytes:
        return self._tokens.decode_bytes([token])

    def constraint(self, grammar: str) -> Constraint:
        """Return the beginning of a grammar. Raises ValueError if it cannot be followed."""
        matcher = LLMatcher(self._tokens, LLMatcher.grammar_from_lark(grammar), log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return Constraint(matcher)


def schema_fault(schema: Mapping[str, Any]) -> str:
    """Return why constrained decoding cannot follow a JSON schema, or nothing."""
    fault: str = LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(json.dumps(schema)))
    return fault


def json_grammar(schema: Mapping[str, Any]) -> str:
    """Return the grammar of JSON texts of a schema."""
    return f"start: {_json(schema)}"


def call_grammar(tools: Mapping[str, Mapping[str, Any]], answer: Mapping[str, Any] | None = None) -> str:
    """Return the grammar of a call of one of `tools`, schemas of arguments by name.

    With a schema for the `answer`, of that or a call in tags, as a model with tools in its template writes it.
    """
    calls = [f"call_{number}" for number in range(len(tools))]
    rules = [
        # The arguments come last, so that of a call that is cut off the name is known.
        f"{call}: {_literal(_opening(name))} {_json(schema)} {_literal('}')}"
        for call, (name, schema) in zip(calls, tools.items(), strict=True)
    ]
    rules.append(f"call: {' | '.join(calls)}")
    if answer is None:
        rules.append("start: call")
    else:
        opening, closing = f"{TAG}\n", f"\n{CLOSING_TAG}"
        rules += [
            f"start: answer | {_literal(opening)} call {_literal(closing)}",
            f"answer: {_json(answer)}",
        ]
    return "\n".join(rules)


def _opening(name: str) -> str:
    return f'{{"name": {json.dumps(name)}, "arguments": '


def _json(schema: Mapping[str, Any]) -> str:
    return f"%json {json.dumps({**schema, 'x-guidance': SPACING})}"


def _literal(text: str) -> str:
    return json.dumps(text)
