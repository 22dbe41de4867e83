"""Constrained answers against jsonschema, on schemas by chance."""

import json
import random
from collections.abc import Mapping
from typing import Any

import jsonschema
import pytest

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.inference.answer_text import AnswerText
from ratchet.inference.batching import GenerationRow, generate, stop_tokens
from ratchet.inference.constraints import Vocabulary, call_grammar, json_grammar, schema_fault
from ratchet.inference.lora import MultiLoraModel
from ratchet.inference.tool_calls import forced_call, split_calls

NUM_SCHEMAS = 60


@pytest.fixture(scope="module")
def loaded(config: Config) -> Any:
    return load_base(config.base_model)


@pytest.fixture(scope="module")
def vocabulary(loaded: Any) -> Vocabulary:
    model, tokenizer = loaded
    return Vocabulary(tokenizer, model.config.vocab_size, stop_tokens(model, tokenizer))


def answers(loaded: Any, vocabulary: Vocabulary, grammars: list[str], max_tokens: int = 200) -> list[GenerationRow]:
    """One sampled answer to each grammar, all in one batch."""
    model, tokenizer = loaded
    rows = [
        GenerationRow(
            prompt=tokenizer("Why is the sky blue?")["input_ids"],
            max_tokens=max_tokens,
            seed=seed,
            constraint=vocabulary.constraint(grammar),
            text=AnswerText(tokenizer.backend_tokenizer),
        )
        for seed, grammar in enumerate(grammars)
    ]
    generate(MultiLoraModel(model), rows, stop_tokens(model, tokenizer))
    return rows


def schema(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    """A schema whose values are short: the model that fills it is a random one, and would go on to its limit."""
    short = [
        {"type": "boolean"},
        {"type": "null"},
        {"enum": ["Paris", 3, None, "Zürich", 'a "quoted" word']},
        {"const": {"a": [1, "b"]}},
        {"type": "integer", "minimum": chance.randrange(10), "maximum": 10 + chance.randrange(90)},
        {"type": "string", "maxLength": chance.randrange(6)},
        {"type": "string", "pattern": "^[a-c]{2,4}-[0-9]$"},
        {"type": "string", "format": "date"},
        {"$ref": "#/$defs/color"},
    ]
    nested = [
        {"type": "array", "items": "", "minItems": 1, "maxItems": 3},
        {"type": "object", "properties": {name: "" for name in chance.sample(["a", "b", "ü", "d e"], 2)}},
        {"anyOf": ["", ""]},
    ]
    chosen = chance.choice(short if depth > 2 else [*short, *nested * 4])
    return {name: filled(value, chance, depth + 1) for name, value in with_limits(chosen).items()}


def with_limits(chosen: dict[str, Any]) -> dict[str, Any]:
    if "properties" not in chosen:
        return chosen
    return {**chosen, "required": [next(iter(chosen["properties"]))], "additionalProperties": False}


def filled(value: Any, chance: random.Random, depth: int) -> Any:
    """Put schemas where a nested one has empty texts."""
    if value == "":
        return schema(chance, depth)
    if isinstance(value, dict) and "" in value.values():
        return {name: schema(chance, depth) for name in value}
    return [schema(chance, depth) for _ in value] if isinstance(value, list) and "" in value else value


def test_answers_follow_schemas_by_chance(loaded: Any, vocabulary: Vocabulary) -> None:
    chance = random.Random(0)
    schemas = [
        {"$defs": {"color": {"enum": ["red", "green"]}}, "type": "object", "required": ["x"],
         "properties": {"x": schema(chance)}, "additionalProperties": False}
        for _ in range(NUM_SCHEMAS)
    ]  # fmt: skip
    rows = answers(loaded, vocabulary, [json_grammar(asked) for asked in schemas])
    for asked, row in zip(schemas, rows, strict=True):
        assert row.text is not None
        assert row.finish_reason == "stop", row.text.text
        jsonschema.validate(json.loads(row.text.text), asked, format_checker=jsonschema.FormatChecker())
    assert len({row.text.text for row in rows if row.text}) > NUM_SCHEMAS / 2, "answers that are all alike prove little"


TOOLS: Mapping[str, Mapping[str, Any]] = {
    'look "up"': {
        "$defs": {"unit": {"enum": ["C", "F"]}}, "type": "object", "required": ["unit", "days"],
        "properties": {"unit": {"$ref": "#/$defs/unit"}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
        "additionalProperties": False,
    },
    "größe": {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"],
              "additionalProperties": False},
}  # fmt: skip


def test_forced_calls_name_a_tool_and_follow_its_schema(loaded: Any, vocabulary: Vocabulary) -> None:
    named = set()
    for row in answers(loaded, vocabulary, [call_grammar(TOOLS)] * 40):
        assert row.text is not None
        [call] = forced_call(row.text.text)
        assert split_calls(row.text.text, TOOLS) == ("", [call])
        jsonschema.validate(json.loads(call.arguments), TOOLS[call.name])
        named.add(call.name)
    assert named == set(TOOLS)


def test_call_that_is_cut_off_has_the_arguments_so_far(loaded: Any, vocabulary: Vocabulary) -> None:
    [whole] = answers(loaded, vocabulary, [call_grammar(TOOLS)])
    cut = [answers(loaded, vocabulary, [call_grammar(TOOLS)], length)[0] for length in range(1, len(whole.tokens))]
    calls = [forced_call(row.text.text) for row in cut if row.text]
    assert all(row.finish_reason == "length" for row in cut)
    assert whole.text is not None
    [full] = forced_call(whole.text.text)
    assert calls[0] == []
    begun = [call for found in calls for call in found]
    assert all(call.name == full.name and full.arguments.startswith(call.arguments) for call in begun)
    assert len({call.arguments for call in begun}) > 3


def test_answer_or_call_is_either(loaded: Any, vocabulary: Vocabulary) -> None:
    asked = {"type": "object", "properties": {"answer": {"type": "boolean"}}, "required": ["answer"],
             "additionalProperties": False}  # fmt: skip
    kinds = set()
    for row in answers(loaded, vocabulary, [call_grammar(TOOLS, asked)] * 40):
        assert row.text is not None
        rest, calls = split_calls(row.text.text, TOOLS)
        for call in calls:
            jsonschema.validate(json.loads(call.arguments), TOOLS[call.name])
        if not calls:
            jsonschema.validate(json.loads(rest), asked)
        kinds.add((bool(rest), len(calls)))
    assert kinds == {(True, 0), (False, 1)}


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"type": "strin"}, "strin"),
        ({"type": "object", "unevaluatedProperties": False}, "unevaluatedProperties"),
        ({"$ref": "#/$defs/absent"}, "absent"),
        ({"type": "string", "pattern": "(?=a)"}, "look-ahead"),
    ],
)
def test_schema_that_cannot_be_followed_says_why(asked: dict[str, Any], said: str) -> None:
    assert said in schema_fault(asked)
    assert not schema_fault({"type": "object", "x-of-ours": 1})


def test_row_whose_grammar_breaks_ends_as_cut_off(vocabulary: Vocabulary, loaded: Any) -> None:
    tokenizer = loaded[1]
    row = GenerationRow(prompt=[1], max_tokens=9, constraint=vocabulary.constraint(json_grammar({"type": "object"})))
    row.take(tokenizer("{")["input_ids"][0], frozenset())
    assert row.finish_reason is None
    row.take(tokenizer("x")["input_ids"][0], frozenset())
    assert row.finish_reason == "length"
