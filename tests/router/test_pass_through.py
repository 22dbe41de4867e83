"""All that a pool can do works through the router, as OpenAI's client reads it, and what was said is recorded."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ratchet.router.answers import ChatReader
from ratchet.router.event_stream import EventStream, Renamer
from ratchet.store import LocalStore
from support.router_client import Start, ask, interactions, message, until

Pool = Callable[[Callable[[dict[str, Any]], Response]], str]
HEAD = {"id": "chatcmpl-of-the-pool", "object": "chat.completion", "created": 1, "model": "base-model"}
USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}
ASKED: Any = [{"role": "user", "content": "Weather?"}]
STREAMED = {"model": "assistant", "messages": ASKED, "stream": True}
TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}


@pytest.fixture
def pool(serve: Callable[[FastAPI], str]) -> Pool:
    """Start a pool that answers each request as told; it keeps bodies and headers in `asked`."""

    def start(answer: Callable[[dict[str, Any]], Response]) -> str:
        app = FastAPI()
        app.get("/v1/models")(lambda: {"data": [{"id": "base-model", "parent": None}]})

        @app.post("/v1/{path:path}")
        async def any_path(path: str, request: Request) -> Response:
            asked.append((await request.json(), dict(request.headers)))
            return answer(asked[-1][0])

        return serve(app)

    asked.clear()
    return start


asked: list[tuple[dict[str, Any], dict[str, str]]] = []


clients: list[openai.OpenAI] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    yield
    while clients:
        clients.pop().close()


def official(router: httpx.Client, max_retries: int = 0) -> openai.OpenAI:
    clients.append(openai.OpenAI(base_url=f"{router.base_url}/v1", api_key="any", max_retries=max_retries))
    return clients[-1]


def whole(*messages: dict[str, Any], reason: str = "stop") -> Response:
    choices = [
        {"index": index, "message": {"role": "assistant", **one}, "finish_reason": reason, "logprobs": None}
        for index, one in enumerate(messages)
    ]
    return JSONResponse({**HEAD, "choices": choices, "usage": USAGE}, headers={"x-ratelimit-remaining-requests": "9"})


def chunk(delta: dict[str, Any], reason: str | None = None, **fields: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None}
    return {**HEAD, "object": "chat.completion.chunk", "choices": [choice], **fields}


def streamed(*events: Any, separator: str = "\n\n", pause_s: float = 0, named: bool = False) -> Response:
    async def parts() -> AsyncIterator[bytes]:
        for event in events:
            text = event if isinstance(event, str) else json.dumps(event)
            name = f"event: {event['type']}\n" if named else ""
            yield f"{name}data: {text}{separator}".encode()
            await asyncio.sleep(pause_s)

    return StreamingResponse(parts(), media_type="text/event-stream")


def test_what_was_asked_goes_to_the_pool_as_it_came(start: Start, pool: Pool, lake: LocalStore) -> None:
    router = start(pool_url=pool(lambda body: whole({"content": "A cat."})))
    image = "data:image/png;base64,aGVsbG8="
    parts = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": image}},
        {"type": "image_url", "image_url": {"url": "https://cdn.example/cat.png?signature=secret"}},
        {"type": "input_audio", "input_audio": {"data": "aGVs" * 2000, "format": "wav"}},
    ]
    said = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": parts}]
    body = {"logit_bias": {"50256": -100}, "n": 1, "a field of tomorrow": {"x": [1.0, None]}, "stop": ["\n"]}
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    headers = {"traceparent": trace, "cookie": "mine"}
    answer = router.post(
        "/v1/chat/completions", json={"model": "assistant", "messages": said, **body}, headers=headers
    ).raise_for_status()
    [(got, got_headers)] = asked
    assert got == {"model": "base-model", "messages": said, **body}
    assert got_headers["traceparent"] == trace
    assert "cookie" not in got_headers
    assert answer.headers["x-ratelimit-remaining-requests"] == "9"
    [stored] = interactions(lake)
    [developer, user] = stored.messages
    assert (developer.role, user.content) == ("developer", "What is this?")
    line = stored.model_dump_json()
    assert not [secret for secret in ("aGVsbG8", "aGVsaGVs", "signature", "secret") if secret in line]
    # the digests as `printf hello | sha256sum` has them
    first = {"media_type": "image/png", "bytes": 5}
    digest = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    recorded = user.model_extra["parts"]  # type: ignore[index]
    assert recorded[1]["image_url"]["url"] == {**first, "sha256": digest}
    assert recorded[2]["image_url"]["url"]["url"] == "https://cdn.example/cat.png"
    assert recorded[3]["input_audio"]["data"]["bytes"] == 6000
    assert stored.params == {"logit_bias": {"50256": -100}, "n": 1, "stop": ["\n"]}


@pytest.mark.parametrize("stream", [False, True])
def test_tool_calls_refusals_and_thoughts_are_recorded_apart(
    start: Start, pool: Pool, lake: LocalStore, stream: bool
) -> None:
    said: dict[str, Any] = {"content": "Let me look.", "refusal": "I will not.", "reasoning_content": "Hm."}
    first, second = ({**CALL, "index": 0, "function": {"name": "get_weather", "arguments": ""}},
                     {"index": 0, "function": {"arguments": '{"city": "Paris"}'}})  # fmt: skip
    events = [*(chunk({name: text}) for name, text in said.items()), chunk({"tool_calls": [first]})]
    events += [chunk({"tool_calls": [second]}), chunk({}, "tool_calls")]
    router = start(
        pool_url=pool(
            lambda body: (
                streamed(*events, "[DONE]") if stream else whole({**said, "tool_calls": [CALL]}, reason="tool_calls")
            )
        )
    )
    schema: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": {"type": "object"}}}
    with official(router) as client:
        got: Any = client.chat.completions.create(
            model="assistant", messages=ASKED, tools=[TOOL], stream=stream, response_format=schema
        )
        calls = [call for one in got for call in one.choices[0].delta.tool_calls or ()] if stream else ()
    assert len(calls) == 2 * stream
    [stored] = interactions(lake)
    assert (stored.response, stored.refusal, stored.reasoning) == ("Let me look.", "I will not.", "Hm.")
    assert (stored.tool_calls, stored.tools, stored.finish_reason) == ([CALL], [TOOL], "tool_calls")
    assert stored.params["response_format"] == schema


def test_each_choice_is_an_answer_of_its_own(start: Start, pool: Pool, lake: LocalStore) -> None:
    router = start(pool_url=pool(lambda body: whole({"content": "One."}, {"content": "Two."})))
    completion = official(router).chat.completions.create(model="assistant", messages=ASKED, n=2)
    assert [choice.message.content for choice in completion.choices] == ["One.", "Two."]
    one, two = sorted(interactions(lake), key=lambda stored: len(stored.interaction_id))
    assert (one.response, two.response) == ("One.", "Two.")
    assert two.interaction_id == f"{one.interaction_id}-1"
    assert one.candidate_group_id == two.candidate_group_id == one.interaction_id
    assert (one.assigned_at, two.assigned_at is None) == (None, False), "the route chose once"
    assert (one.completion_tokens, two.completion_tokens) == (7, None), "of both together, once"


@pytest.mark.parametrize("asks", [None, False, True])
def test_usage_is_asked_for_and_hidden_from_who_did_not_ask(
    start: Start, pool: Pool, lake: LocalStore, asks: bool | None
) -> None:
    hello, end = chunk({"content": "Hello"}, usage=None), chunk({}, "stop", usage=None)
    counted = {**HEAD, "choices": [], "usage": USAGE}
    router = start(pool_url=pool(lambda body: streamed(hello, end, counted, "[DONE]")))
    options = {} if asks is None else {"stream_options": {"include_usage": asks}}
    text = ask(router, stream=True, **options).text
    [(got, _)] = asked
    assert got["stream_options"] == {"include_usage": True}
    assert ("usage" in text) == (asks is True)
    [stored] = interactions(lake)
    assert (stored.response, stored.prompt_tokens, stored.completion_tokens) == ("Hello", 11, 7)


def test_tokens_that_nobody_counted_are_unknown_and_not_none(start: Start, pool: Pool, lake: LocalStore) -> None:
    router = start(pool_url=pool(lambda body: streamed(chunk({"content": "Hello"}, "stop"), "[DONE]")))
    ask(router, stream=True)
    [stored] = interactions(lake)
    assert (stored.prompt_tokens, stored.completion_tokens) == (None, None)


def test_no_chunk_waits_for_the_next(start: Start, pool: Pool) -> None:
    pause_s = 2.0
    words = [chunk({"content": word}) for word in ("a", "b")]
    router = start(pool_url=pool(lambda body: streamed(*words, chunk({}, "stop"), "[DONE]", pause_s=pause_s)))
    began = time.monotonic()
    with router.stream("POST", "/v1/chat/completions", json=STREAMED) as response:
        parts = response.iter_raw()
        assert b'"a"' in next(parts)
        assert time.monotonic() - began < pause_s, "the second comes after a pause, the first must not wait for it"


def test_events_between_carriage_returns_are_events(start: Start, pool: Pool, lake: LocalStore) -> None:
    words = [chunk({"content": f"word{number} "}) for number in range(40)]
    router = start(pool_url=pool(lambda body: streamed(*words, separator="\r\n\r\n", pause_s=0.05)))
    with router.stream("POST", "/v1/chat/completions", json=STREAMED) as response:
        seen = ""
        for part in response.iter_text():
            seen += part
            if "word3" in seen:
                break
    until(lambda: bool(interactions(lake)))
    [stored] = interactions(lake)
    assert stored.finish_reason == "abandoned"
    assert stored.response.startswith("word0 word1 word2 word3 ")


def test_what_the_pool_says_as_it_breaks_off_reaches_the_client(start: Start, pool: Pool, lake: LocalStore) -> None:
    error = {"error": {"message": "base-model: the engine died", "type": "InternalServerError", "code": 500}}
    router = start(pool_url=pool(lambda body: streamed(chunk({"content": "Hel"}), error, "[DONE]")))
    with pytest.raises(openai.APIError, match="assistant: the engine died"):
        list(official(router).chat.completions.create(model="assistant", messages=ASKED, stream=True))
    until(lambda: bool(interactions(lake)))
    assert [(one.response, one.finish_reason) for one in interactions(lake)] == [("Hel", "broken_off")]


def test_a_pool_that_says_no_is_asked_once_by_a_client_that_asks_again(start: Start, pool: Pool) -> None:
    busy = JSONResponse({"error": {"message": "at http://10.0.0.7"}}, 503, {"retry-after": "0"})
    router = start(pool_url=pool(lambda body: busy), retries=1)
    client = official(router, max_retries=1)
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(model="assistant", messages=ASKED)
    assert len(asked) == 2, "the client's own two tries"
    assert caught.value.response.headers["retry-after"] == "0"
    assert "10.0.0.7" not in caught.value.response.text
    asked.clear()
    assert ask(router).status_code == 503
    assert len(asked) == 2, "for a client that does not try again by itself"


@pytest.mark.parametrize(
    ("body", "raised", "param", "code"),
    [
        ({"messages": []}, openai.BadRequestError, "messages", None),
        ({"messages": "Hi"}, openai.BadRequestError, "messages", None),
        ({"model": "gpt-x"}, openai.NotFoundError, "model", "model_not_found"),
        ({"model": None}, openai.BadRequestError, "model", None),
    ],
)
def test_errors_are_those_that_openais_clients_know(
    start: Start, pool: Pool, body: dict[str, Any], raised: type[openai.APIStatusError], param: str, code: str | None
) -> None:
    router = start(pool_url=pool(lambda body: whole({"content": "never"})))
    with pytest.raises(raised) as caught:
        official(router).chat.completions.create(**{"model": "assistant", "messages": ASKED, **body})
    assert (caught.value.type, caught.value.param, caught.value.code) == ("invalid_request_error", param, code)


def test_what_is_too_large_is_said_in_openais_shape(start: Start, pool: Pool) -> None:
    router = start(pool_url=pool(lambda body: whole({"content": "never"})))
    with pytest.raises(openai.APIStatusError, match="larger than") as caught:
        official(router).chat.completions.create(
            model="assistant", messages=[{"role": "user", "content": "a" * 5_000_000}]
        )
    assert (caught.value.status_code, caught.value.type) == (413, "invalid_request_error")


def test_embeddings_and_completions_are_passed_on_and_not_recorded(start: Start, pool: Pool, lake: LocalStore) -> None:
    vector = {"object": "embedding", "index": 0, "embedding": [0.1, 0.2]}
    embedded = {"object": "list", "model": "base-model", "data": [vector], "usage": {"prompt_tokens": 1}}
    router = start(pool_url=pool(lambda body: JSONResponse(embedded)))
    got = official(router).embeddings.create(model="assistant", input="Hi", encoding_format="float")
    assert (got.model, got.data[0].embedding) == ("assistant", [0.1, 0.2])
    text = {**HEAD, "object": "text_completion", "choices": [{"index": 0, "text": "Hi", "finish_reason": "stop"}]}
    router = start(pool_url=pool(lambda body: streamed(text, "[DONE]")))
    texts = official(router).completions.create(model="assistant", prompt="Say", stream=True)
    assert [(one.model, one.choices[0].text) for one in texts] == [("assistant", "Hi")]
    assert interactions(lake) == []


RESPONSE = {
    "id": "resp_1", "object": "response", "created_at": 1, "model": "base-model", "status": "completed",
    "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
    "output": [
        {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"type": "message", "id": "m1", "role": "assistant", "status": "completed",
         "content": [{"type": "output_text", "text": "Hi there", "annotations": []}]},
        {"type": "function_call", "id": "f1", "call_id": "call_1", "name": "get_weather", "arguments": "{}"},
    ],
    "usage": {"input_tokens": 3, "output_tokens": 4, "total_tokens": 7},
}  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
def test_responses_are_recorded_like_chats(start: Start, pool: Pool, lake: LocalStore, stream: bool) -> None:
    events = [
        {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "output": []}},
        {"type": "response.output_text.delta", "sequence_number": 1, "item_id": "m1", "output_index": 1,
         "content_index": 0, "delta": "Hi there", "logprobs": []},
        {"type": "response.completed", "sequence_number": 2, "response": RESPONSE},
    ]  # fmt: skip
    router = start(pool_url=pool(lambda body: streamed(*events, named=True) if stream else JSONResponse(RESPONSE)))
    items: Any = [
        {"role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "function_call", "call_id": "c0", "name": "get_weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c0", "output": "Sun."},
    ]
    got: Any = official(router).responses.create(
        model="assistant", input=items, instructions="Be brief.", stream=stream, user="u1"
    )
    if stream:
        got = list(got)[-1].response
    assert (got.id, got.model, got.output_text) == ("resp_1", "assistant", "Hi there")
    [stored] = interactions(lake)
    assert [(one.role, one.content) for one in stored.messages] == [
        ("system", "Be brief."), ("user", "Weather?"), ("assistant", ""), ("tool", "Sun."),
    ]  # fmt: skip
    assert (stored.response, stored.reasoning, stored.subject_id) == ("Hi there", "Hm.", "u1")
    assert (stored.prompt_tokens, stored.completion_tokens) == (3, 4)
    assert [call["function"]["name"] for call in stored.tool_calls or ()] == ["get_weather"]


@pytest.mark.parametrize("stream", [False, True])
def test_anthropics_messages_are_recorded_like_chats(start: Start, pool: Pool, lake: LocalStore, stream: bool) -> None:
    """The events are those of Anthropic's documentation, "Streaming messages"; there is no client of theirs here."""
    start_of = {"id": "msg_1", "type": "message", "role": "assistant", "model": "base-model", "content": [],
                "stop_reason": None, "usage": {"input_tokens": 25, "output_tokens": 1}}  # fmt: skip
    use = {"type": "tool_use", "id": "t1", "name": "get_weather", "input": {}}
    events = [
        {"type": "message_start", "message": start_of},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "ping"},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Let me "}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "look."}},
        {"type": "content_block_stop", "index": 0},
        {"type": "content_block_start", "index": 1, "content_block": use},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a":'}},
        {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": " 1}"}},
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 9}},
        {"type": "message_stop"},
    ]
    content = [{"type": "text", "text": "Let me look."}, {**use, "input": {"a": 1}}]
    usage = {"input_tokens": 25, "output_tokens": 9}
    answer = {**start_of, "content": content, "stop_reason": "tool_use", "usage": usage}
    router = start(pool_url=pool(lambda body: streamed(*events, named=True) if stream else JSONResponse(answer)))
    said = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t0", "name": "f", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t0", "content": "Sun."}]},
    ]
    body = {"model": "assistant", "max_tokens": 9, "system": "Be brief.", "messages": said, "stream": stream}
    response = router.post("/v1/messages", json=body).raise_for_status()
    assert "base-model" not in response.text
    [stored] = interactions(lake)
    assert [(one.role, one.content) for one in stored.messages] == [
        ("system", "Be brief."), ("user", "Weather?"), ("assistant", ""), ("tool", "Sun."),
    ]  # fmt: skip
    assert (stored.response, stored.finish_reason) == ("Let me look.", "tool_calls")
    assert (stored.prompt_tokens, stored.completion_tokens) == (25, 9)
    [call] = stored.tool_calls or ()
    assert json.loads(call["function"]["arguments"]) == {"a": 1}


def test_a_pool_without_an_api_says_so_itself(start: Start, pool: Pool, lake: LocalStore) -> None:
    router = start(pool_url=pool(lambda body: JSONResponse({"detail": "Not Found"}, 404)))
    response = router.post("/v1/responses", json={"model": "assistant", "input": "Hi"})
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})
    assert interactions(lake) == []
    missing = router.post("/v1/responses", json={"model": "assistant"})
    assert (missing.status_code, "input" in message(missing)) == (400, True)


def test_a_front_ends_own_requests_are_told_apart(start: Start, pool: Pool, lake: LocalStore) -> None:
    router = start(pool_url=pool(lambda body: whole({"content": "Sky chat"})))
    title = "### Task:\nGenerate a concise, 3-5 word title with an emoji summarizing the chat history."
    for asks in (title, "Why is the sky blue?"):
        ask(router, messages=[{"role": "user", "content": asks}])
    assert [stored.task for stored in interactions(lake)] == ["front_end", None]


@pytest.mark.parametrize(
    ("deltas", "said", "calls"),
    [
        ([{"content": [{"type": "text", "text": "Hello"}]}], "Hello", None),
        ([{"content": "Hel"}, {"content": None, "tool_calls": None}, {"content": "lo"}], "Hello", None),
        (
            [{"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]},
             {"tool_calls": [{"id": "b", "function": {"name": "g", "arguments": {"x": 1}, "strict": True}}]}],
            "", ["f", "g"],
        ),
    ],
    ids=["parts", "nulls", "calls without an index"],
)  # fmt: skip
def test_what_other_pools_send_is_read(
    start: Start, pool: Pool, lake: LocalStore, deltas: list[dict[str, Any]], said: str, calls: list[str] | None
) -> None:
    odd = [{**HEAD, "choices": None}, {**HEAD, "id": ""}]
    events = [*odd, *map(chunk, deltas), chunk({}, "stop")]
    router = start(pool_url=pool(lambda body: streamed(*events, "[DONE]")))
    assert ask(router, stream="true").text.endswith("data: [DONE]\n\n"), "pools take more for true than the literal"
    [stored] = interactions(lake)
    assert stored.response == said
    assert [call["function"]["name"] for call in stored.tool_calls or ()] == (calls or [])


def test_an_event_beside_the_pools_error_reaches_the_client(start: Start, pool: Pool, lake: LocalStore) -> None:
    both = json.dumps(chunk({"content": "Hello"})) + "\n\ndata: " + json.dumps({"error": {"message": "died"}})
    router = start(pool_url=pool(lambda body: streamed(both)))
    text = ask(router, stream=True).text
    assert "Hello" in text
    assert "died" in text


def test_what_a_tool_was_asked_is_not_renamed_and_not_cut(start: Start, pool: Pool, lake: LocalStore) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "order", "input": {"model": "X5"}}
    answer = {"type": "message", "model": "base-model", "content": [use], "stop_reason": "tool_use"}
    router = start(pool_url=pool(lambda body: JSONResponse(answer)), api_keys="acme=k1-with-many-characters")
    long = "a" * 6000
    said = [
        {"role": "user", "content": "Write it."},
        {"role": "assistant", "content": [{**use, "input": {"text": long, "url": "https://a/b?c=d"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": long}]},
    ]
    body = {"model": "assistant", "max_tokens": 9, "messages": said}
    response = router.post("/v1/messages", json=body, headers={"x-api-key": "k1-with-many-characters"})
    got = response.raise_for_status().json()
    assert (got["model"], got["content"][0]["input"]) == ("assistant", {"model": "X5"})
    [stored] = interactions(lake)
    assert stored.messages[2].content == long
    [call] = (stored.messages[1].model_extra or {})["tool_calls"]
    assert json.loads(call["function"]["arguments"]) == {"text": long, "url": "https://a/b?c=d"}


@pytest.mark.parametrize(
    "address",
    ["https://bob:S3CRET@h/y.png", "https://h/y.png#t=S3CRET", "HTTPS://h/y?s=S3CRET", "s3://h/y?s=S3CRET",
     "http://[S3CRET/y?z", "DATA:image/png;base64,S3CRET"],
)  # fmt: skip
def test_no_secret_of_an_address_and_no_byte_of_a_medium_reaches_the_lake(
    start: Start, pool: Pool, lake: LocalStore, address: str
) -> None:
    router = start(pool_url=pool(lambda body: whole({"content": "A cat."})))
    parts = [
        {"type": "image_url", "image_url": {"url": address}},
        {"type": "input_audio", "input_audio": {"data": "S3CRET"}},
    ]
    ask(router, messages=[{"role": "user", "content": parts, "parts": []}]).raise_for_status()
    [stored] = interactions(lake)
    assert "s3cret" not in stored.model_dump_json().lower()


def test_a_client_that_leaves_before_the_first_event_is_on_record(start: Start, pool: Pool, lake: LocalStore) -> None:
    router = start(pool_url=pool(lambda body: StreamingResponse(silence(), media_type="text/event-stream")))
    with router.stream("POST", "/v1/chat/completions", json=STREAMED) as response:
        assert response.status_code == 200
    until(lambda: bool(interactions(lake)))
    assert [(one.response, one.finish_reason) for one in interactions(lake)] == [("", "abandoned")]


async def silence() -> AsyncIterator[bytes]:
    await asyncio.sleep(60)
    yield b""


def test_a_large_event_in_small_pieces_is_looked_through_once() -> None:
    stream = EventStream(ChatReader(), Renamer("assistant"))
    event = b"data: " + json.dumps(chunk({"content": "a" * (4 << 20)})).encode() + b"\n\n"
    looked_at = sum(len(stream.feed(event[place : place + 4096])) for place in range(0, len(event), 4096))
    assert looked_at == len(event) + len(b"assistant") - len(b"base-model")
