"""Calls in text and in prompts, by the chat templates that models with tools ship (a copy of each is in trl)."""

import json
from importlib.resources import files
from typing import Any

import pytest
from transformers import AutoTokenizer

from ratchet.config import Config
from ratchet.inference.openai_api import ChatMessage
from ratchet.inference.tool_calls import Call, before_calls, renders_tools, split_calls

WEATHER = {"name": "get_weather", "arguments": {"city": "Zürich", "tags": ["<b>", {"a": None}], "text": 'a "b" } \n'}}
TIME = {"name": "get_time", "arguments": {}}
NAMES = {"get_weather", "get_time"}
HERMES = ["qwen2_5", "qwen3", "qwen3_instruct_2507"]


@pytest.fixture(scope="module")
def tokenizer(config: Config) -> Any:
    return AutoTokenizer.from_pretrained(config.base_model.model)


def with_template(tokenizer: Any, name: str) -> Any:
    tokenizer.chat_template = files("trl").joinpath("chat_templates", f"{name}.jinja").read_text()
    return tokenizer


def message(text: str | None, *calls: dict[str, Any]) -> dict[str, Any]:
    """An assistant's message as OpenAI's clients send it: the arguments are text."""
    tool_calls = [
        {"id": f"call_{place}", "type": "function", "function": {**call, "arguments": json.dumps(call["arguments"])}}
        for place, call in enumerate(calls)
    ]
    return ChatMessage.model_validate({"role": "assistant", "content": text, "tool_calls": tool_calls}).for_template()


def written(tokenizer: Any, text: str | None, *calls: dict[str, Any]) -> str:
    """What the model writes, by its template, to say this."""
    ask = [{"role": "user", "content": "Hello."}]
    before = tokenizer.apply_chat_template(ask, tokenize=False, add_generation_prompt=True)
    after = tokenizer.apply_chat_template([*ask, message(text, *calls)], tokenize=False)
    answer = after.removeprefix(before)
    assert answer != after
    return str(answer.removesuffix("\n").removesuffix("<|im_end|>"))


def made(*calls: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(call["name"], call["arguments"]) for call in calls]


def parsed(calls: list[Call]) -> list[tuple[str, Any]]:
    return [(call.name, json.loads(call.arguments)) for call in calls]


@pytest.mark.parametrize("name", HERMES)
@pytest.mark.parametrize("calls", [[WEATHER], [TIME, WEATHER, TIME]], ids=["one", "three"])
@pytest.mark.parametrize("text", [None, "Let me look."])
def test_what_the_template_writes_for_calls_is_read_as_these_calls(
    tokenizer: Any, name: str, calls: list[dict[str, Any]], text: str | None
) -> None:
    said = written(with_template(tokenizer, name), text, *calls)
    rest, found = split_calls(said, NAMES)
    assert parsed(found) == made(*calls)
    assert rest.removeprefix("<think>\n\n</think>").strip() == (text or "")


def test_call_that_is_the_whole_answer_is_read_as_llama_writes_it(tokenizer: Any) -> None:
    said = '{"name": "get_weather", "parameters": {"city": "Zürich"}}'
    ask = {"role": "user", "content": "Hello."}
    template = with_template(tokenizer, "llama3_2")
    call = message("", {"name": "get_weather", "arguments": {"city": "Zürich"}})
    assert said in template.apply_chat_template([ask, call], tokenize=False).replace("\\u00fc", "ü")
    assert parsed(split_calls(said, NAMES)[1]) == [("get_weather", {"city": "Zürich"})]
    assert split_calls(said, {"another"}) == (said, [])


@pytest.mark.parametrize(
    "said",
    [
        "The tags are <tool_call> and </tool_call>.",
        "<tool_call>\nget_weather(city)\n</tool_call>",
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": \n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": "Zürich"}\n</tool_call>',
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "\\ud800"}}\n</tool_call>',
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>\n<tool_call>\n{"name": \n</tool_call>',
        '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>\n<tool_call>\n{"name":',
        '{"answer": 4}',
        '["get_time"]',
        "",
    ],
)
def test_what_is_no_call_stays_text(said: str) -> None:
    assert split_calls(said, NAMES) == (said, [])


def test_no_text_beside_calls_is_lost() -> None:
    call = '<tool_call>\n{"name": "get_time", "arguments": {}}\n</tool_call>'
    assert split_calls(f"Before.\n{call}\nBetween.\n{call}\nAfter.", NAMES) == (
        "Before.\n\nBetween.\n\nAfter.",
        [Call("get_time", "{}")] * 2,
    )
    assert split_calls(call.removesuffix("</tool_call>"), NAMES) == ("", [Call("get_time", "{}")])


@pytest.mark.parametrize("name", HERMES)
def test_text_that_is_sent_ahead_is_never_part_of_a_call(tokenizer: Any, name: str) -> None:
    said = written(with_template(tokenizer, name), "Is 1 < 2?\n\nLet me look.", WEATHER, TIME)
    rest, _ = split_calls(said, NAMES)
    ahead = [before_calls(said[:length]) for length in range(len(said) + 1)]
    assert all(rest.startswith(text) for text in ahead)
    assert ahead == sorted(ahead, key=len)
    assert ahead[-1] == rest
    assert before_calls(' {"name"') == ""


def test_template_is_asked_whether_it_knows_tools(tokenizer: Any) -> None:
    plain = tokenizer.chat_template
    for name in (*HERMES, "llama3_2"):
        assert renders_tools(with_template(tokenizer, name)), name
    for name in ("gemma", "phi3"):
        assert not renders_tools(with_template(tokenizer, name)), name
    tokenizer.chat_template = "{% if tools %}{{ raise_exception('no tools') }}{% endif %}" + plain
    assert not renders_tools(tokenizer)
