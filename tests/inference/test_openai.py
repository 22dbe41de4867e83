"""The model server under OpenAI's own client: what the client's types, helpers and exceptions make of its answers."""

import json
import logging
import shutil
import socket
import time
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import httpx
import jsonschema
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel
from transformers import AutoTokenizer

from ratchet.config import BaseModelSource, Config
from ratchet.inference.server import create_app
from support.http_server import running

ASK = [{"role": "user", "content": "Why is the sky blue?"}]
WEATHER = {
    "type": "object",
    "properties": {"city": {"enum": ["Paris", "Zürich"]}, "days": {"type": "integer", "minimum": 1, "maximum": 9}},
    "required": ["city", "days"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": WEATHER}},
    {"type": "function", "function": {"name": "get_time"}},
]


@pytest.fixture(scope="module")
def client(pool: str) -> Iterator[openai.OpenAI]:
    """A client of a server whose model's template knows no tools."""
    with openai.OpenAI(base_url=f"{pool}/v1", api_key="-", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def tool_client(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """A client of a server whose model has Qwen's template."""
    folder = tmp_path_factory.mktemp("tools") / "model"
    shutil.copytree(base, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = files("trl").joinpath("chat_templates", "qwen3.jinja").read_text()
    tokenizer.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 2048}
    (folder / "config.json").write_text(json.dumps(config))
    app = create_app(Config(base_model=BaseModelSource(model=str(folder), dtype="float32")))
    with running(app) as url, openai.OpenAI(base_url=f"{url}/v1", api_key="-", max_retries=0, timeout=60) as client:
        yield client


def asked(client: openai.OpenAI, **fields: Any) -> dict[str, Any]:
    return {"model": client.models.list().data[0].id, "messages": ASK, "max_tokens": 40, "seed": 1, **fields}


def ask(client: openai.OpenAI, **fields: Any) -> ChatCompletion:
    return client.chat.completions.create(**asked(client, **fields))


def streamed(client: openai.OpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    return list(client.chat.completions.create(**asked(client, **fields), stream=True))


def comparable(completion: ChatCompletion) -> Any:
    """A completion without its ids and times."""
    return [
        (
            choice.message.content or "",
            [(call.function.name, call.function.arguments) for call in choice.message.tool_calls or ()],
            [entry.model_dump() for entry in (choice.logprobs and choice.logprobs.content) or ()],
            choice.finish_reason,
        )
        for choice in completion.choices
    ]


def added_up(chunks: list[ChatCompletionChunk], index: int) -> Any:
    """A choice of a stream, like one of `comparable`."""
    parts = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    calls = [call for part in parts for call in part.delta.tool_calls or ()]
    return (
        "".join(part.delta.content or "" for part in parts),
        [(call.function.name, call.function.arguments) for call in calls if call.function],
        [entry.model_dump() for part in parts for entry in (part.logprobs and part.logprobs.content) or ()],
        parts[-1].finish_reason,
    )


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"n": 3, "temperature": 1.0},
        {"stop": ["e", "a b"], "n": 4},
        {"logprobs": True, "top_logprobs": 4, "n": 2},
        {"logprobs": True, "stop": "r"},
        {"tools": TOOLS, "tool_choice": "required", "n": 3},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "get_time"}}},
        {"tools": TOOLS, "tool_choice": "required", "max_tokens": 12},
        {"tools": TOOLS, "n": 2},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}}},
    ],
)
def test_stream_adds_up_to_the_whole(client: openai.OpenAI, fields: dict[str, Any]) -> None:
    whole = ask(client, **fields)
    chunks = streamed(client, **fields, stream_options={"include_usage": True})
    assert [added_up(chunks, index) for index in range(fields.get("n", 1))] == comparable(whole)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)


def test_clients_own_helper_reads_the_stream(client: openai.OpenAI) -> None:
    fields = asked(client, tools=TOOLS, tool_choice="required", max_tokens=200)
    with client.chat.completions.stream(**fields) as stream:
        final = stream.get_final_completion()
    assert calls_of(final) == calls_of(client.chat.completions.create(**fields))


def test_choices_differ_and_each_repeats(client: openai.OpenAI) -> None:
    first, again, other = (ask(client, n=3, seed=seed) for seed in (1, 1, 9))
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len({*texts, *(choice.message.content for choice in other.choices)}) == 6
    assert texts[0] == ask(client).choices[0].message.content
    assert first.usage is not None
    assert first.usage.completion_tokens > 40 >= first.usage.completion_tokens / 3


def test_choices_of_a_stream_come_side_by_side(client: openai.OpenAI) -> None:
    chunks = streamed(client, n=2, temperature=0)
    order = [choice.index for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert order != sorted(order)


def test_log_probabilities_spell_the_text(client: openai.OpenAI) -> None:
    stop = (ask(client, temperature=0).choices[0].message.content or "")[20:25]
    ending = {"max_tokens": 400, "logit_bias": {"2": 2}, "temperature": 1}
    for fields in ({}, {"stop": stop}, ending):
        choice = ask(client, **{"logprobs": True, "top_logprobs": 2, "temperature": 0, **fields}).choices[0]
        assert choice.logprobs is not None
        entries = choice.logprobs.content or []
        spelled = b"".join(bytes(entry.bytes or ()) for entry in entries).decode(errors="replace")
        assert spelled.replace("<|endoftext|>", "").startswith(choice.message.content or "-")
        assert "<|im_end|>" not in spelled
        assert len(entries) > 1
        for entry in entries:
            likeliest = [other.logprob for other in entry.top_logprobs]
            assert likeliest == sorted(likeliest, reverse=True)
            assert entry.logprob <= likeliest[0] <= 0
    assert choice.finish_reason == "stop", "the token that ends an answer was to be among the cases"


def test_stop_text_is_not_returned_and_no_client_sees_its_beginning(client: openai.OpenAI) -> None:
    free = ask(client, temperature=0).choices[0].message.content or ""
    stop = free[20:25]
    assert stop[0] not in free[:20]
    choice = ask(client, temperature=0, stop=stop).choices[0]
    assert (choice.message.content, choice.finish_reason) == (free[:20], "stop")
    assert added_up(streamed(client, temperature=0, stop=stop), 0)[0] == free[:20]


class Weather(BaseModel):
    """As an application writes it; the client makes its schema a strict one."""

    is_sunny: bool
    wind: Literal["calm", "strong"] | None


def test_parse_gives_an_object(client: openai.OpenAI) -> None:
    for seed in range(5):
        parsed = client.chat.completions.parse(**asked(client, seed=seed, max_tokens=200), response_format=Weather)
        assert isinstance(parsed.choices[0].message.parsed, Weather)


def test_any_object_is_an_object(client: openai.OpenAI) -> None:
    [choice] = ask(client, response_format={"type": "json_object"}, max_tokens=400, temperature=0.3).choices
    text = choice.message.content or ""
    assert text.startswith("{")
    if choice.finish_reason == "stop":
        assert isinstance(json.loads(text), dict)


def calls_of(completion: ChatCompletion) -> list[tuple[str, Any]]:
    [choice] = completion.choices
    calls = choice.message.tool_calls or []
    assert choice.finish_reason == ("tool_calls" if calls else choice.finish_reason)
    assert len({call.id for call in calls}) == len(calls)
    return [(call.function.name, json.loads(call.function.arguments)) for call in calls]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_call_that_is_asked_for_is_made(client: openai.OpenAI, choice: Any) -> None:
    made = [
        call
        for seed in range(12)
        for call in calls_of(ask(client, seed=seed, tools=TOOLS, tool_choice=choice, max_tokens=200))
    ]
    assert len(made) == 12
    schemas = {"get_weather": WEATHER, "get_time": {"type": "object", "maxProperties": 0}}
    for name, arguments in made:
        jsonschema.validate(arguments, schemas[name])
    assert {name for name, _ in made} == (set(schemas) if choice == "required" else {"get_weather"})


def test_first_chat_with_tools_is_answered_though_the_model_knows_none(
    client: openai.OpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    """As Open WebUI sends it."""
    plain = ask(client, temperature=0)
    with caplog.at_level(logging.WARNING):
        offered = ask(client, temperature=0, tools=TOOLS, tool_choice="auto")
    assert comparable(offered) == comparable(plain)
    assert len([record for record in caplog.records if "knows no tools" in record.message]) <= 1


def test_tools_reach_a_model_whose_template_knows_them(tool_client: openai.OpenAI) -> None:
    def prompt_tokens(**fields: Any) -> int:
        usage = ask(tool_client, max_tokens=1, **fields).usage
        return usage.prompt_tokens if usage else 0

    assert prompt_tokens(tools=TOOLS) > prompt_tokens(tools=TOOLS[1:]) > prompt_tokens(tools=TOOLS, tool_choice="none")
    assert prompt_tokens(tools=TOOLS, tool_choice="none") == prompt_tokens()


def test_prompts_are_those_of_transformers(tool_client: openai.OpenAI) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tool_client.models.list().data[0].id)
    lengths: list[int] = []
    begun = [*ASK, {"role": "assistant", "content": "Because the"}]
    for messages, given, ours in (
        (ASK, {"add_generation_prompt": True}, {}),
        (ASK, {"tools": TOOLS, "add_generation_prompt": True}, {"tools": TOOLS}),
        (
            ASK,
            {"enable_thinking": False, "add_generation_prompt": True},
            {"extra_body": {"chat_template_kwargs": {"enable_thinking": False}}},
        ),
        (begun, {"add_generation_prompt": False}, {"extra_body": {"add_generation_prompt": False}}),
        (begun, {"continue_final_message": True}, {"extra_body": {"continue_final_message": True}}),
    ):
        usage = ask(tool_client, messages=messages, max_tokens=1, **ours).usage
        assert usage is not None
        lengths.append(len(tokenizer.apply_chat_template(messages, **given)["input_ids"]))
        assert usage.prompt_tokens == lengths[-1]
    assert len(set(lengths)) == len(lengths)


def test_model_calls_by_itself_and_reads_the_result(tool_client: openai.OpenAI) -> None:
    """The model is a random one: a schema for its answer leaves it the answer or a call, and a bias the call."""
    tokenizer = AutoTokenizer.from_pretrained(tool_client.models.list().data[0].id)
    [opening] = tokenizer("<")["input_ids"]
    fields = {
        "tools": TOOLS,
        "response_format": {"type": "json_schema", "json_schema": {"name": "weather", "schema": WEATHER}},
        "max_tokens": 200,
    }
    answered = ask(tool_client, **fields, logit_bias={opening: -100})
    jsonschema.validate(json.loads(answered.choices[0].message.content or ""), WEATHER)
    calling = {**fields, "logit_bias": {opening: 100}}
    called = ask(tool_client, **calling)
    assert calls_of(called)
    assert [added_up(streamed(tool_client, **calling), 0)] == comparable(called)
    message = called.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Sunny."}
    turn = ask(tool_client, messages=[*ASK, message, result], tools=TOOLS)
    assert turn.usage is not None
    assert called.usage is not None
    assert turn.usage.prompt_tokens > called.usage.prompt_tokens


def test_one_model_is_found_by_its_name(client: openai.OpenAI) -> None:
    for model in client.models.list():
        assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("nobody/knows")
    assert (error.value.code, error.value.param) == ("model_not_found", "model")


@pytest.mark.parametrize(
    ("fields", "param", "said"),
    [
        ({"messages": []}, "messages", "at least 1"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 129}, "n", "128"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "at most 4"),
        ({"stop": ""}, "stop", "at least 1"),
        ({"top_p": 1.1}, "top_p", "less than or equal to 1"),
        ({"top_logprobs": 2}, "top_logprobs", "when logprobs is true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "20"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "integer"),
        ({"logit_bias": {"1": 101}}, "logit_bias", "100"),
        ({"logit_bias": {"100000": 1}}, "logit_bias", "100000"),
        ({"tool_choice": "required"}, "tool_choice", "when tools are specified"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "not among"),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools", "function"),
        ({"tools": [{**TOOLS[1], "function": {"name": "f", "parameters": {"type": "object", "not": {}}}}],
          "tool_choice": "required"},
         "tools", "cannot be followed"),
        ({"tools": [{**TOOLS[1], "function": {"name": "f", "parameters": {"type": "array"}}}]}, "tools", "type object"),
        ({"extra_body": {"chat_template_kwargs": {"chat_template": "x"}}}, "chat_template_kwargs", "no variable"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "needs json_schema"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "x"}}}},
         "response_format", "cannot be followed"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
         "messages", "'image_url'"),
        ({"messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": ""}}]}]},
         "messages", "'input_audio'"),
        ({"max_completion_tokens": 0}, "max_completion_tokens", "greater than 0"),
        ({"extra_body": {"top_k": 5}}, "top_k", "not supported"),
        ({"reasoning_effort": "high"}, "reasoning_effort", "not supported"),
        ({"functions": [{"name": "f"}]}, "functions", "not supported"),
    ],
)  # fmt: skip
def test_what_is_refused_is_a_bad_request_that_names_its_field(
    client: openai.OpenAI, fields: dict[str, Any], param: str, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, **fields)
    assert (error.value.param, error.value.type, error.value.code) == (param, "invalid_request_error", None)
    assert said in error.value.message


def test_chat_that_is_too_long_is_refused_and_one_that_fits_is_cut(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as error:
        ask(client, max_tokens=600)
    assert error.value.code == "context_length_exceeded"
    long = [{"role": "user", "content": "bread " * 300}]
    completion = ask(client, messages=long, max_tokens=None, logit_bias={"0": -100, "1": -100, "2": -100})
    assert completion.usage is not None
    assert completion.choices[0].finish_reason == "length"
    assert completion.usage.total_tokens == 512


def test_newer_names_are_known(client: openai.OpenAI) -> None:
    system, developer = (
        ask(client, messages=[{"role": role, "content": "Be brief."}, *ASK], temperature=0)
        for role in ("system", "developer")
    )
    assert comparable(system) == comparable(developer)
    both = ask(client, max_completion_tokens=3)
    assert both.usage is not None
    assert both.usage.completion_tokens <= 3


def test_generation_stops_for_a_client_that_leaves_a_whole_answer(client: openai.OpenAI, pool: str) -> None:
    def aborted() -> float:
        lines = httpx.get(f"{pool}/metrics").text.splitlines()
        return next(float(line.split()[-1]) for line in lines if "request_success_total" in line and '"abort"' in line)

    before = aborted()
    body = json.dumps(asked(client, n=32, max_tokens=400, logit_bias={"0": -100, "1": -100, "2": -100})).encode()
    host, port = pool.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n"
        connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
        time.sleep(0.2)
    deadline = time.monotonic() + 20
    while aborted() == before:
        assert time.monotonic() < deadline
        time.sleep(0.02)
