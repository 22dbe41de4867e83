"""What a client gets wrong, or leaves, is its own: a 4xx, counted for no arm, and never a failure of the router."""

import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ratchet.store import LocalStore
from support.router_client import NOWHERE, Start, ask, body, interactions, stub, token, until

WHOLE = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}


def counted(router: httpx.Client, name: str) -> dict[str, float]:
    """The samples of one counter, by the rest of their line."""
    lines = [line for line in router.get("/metrics").text.splitlines() if line.startswith(f"{name}_total")]
    return {line.rpartition(" ")[0].removeprefix(f"{name}_total"): float(line.rpartition(" ")[2]) for line in lines}


@pytest.mark.parametrize(
    "fields",
    [
        b'"messages":[{"role":"user","content":"half an emoji \\ud83d"}]',
        b'"seed":' + b"[" * 300 + b"]" * 300,
        b'"temperature":NaN',
        b'"temperature":1e999',
        b'"\\udc00":1',
    ],
    ids=["half a surrogate pair", "300 arrays", "not a number", "infinite", "half a pair as a key"],
)
def test_what_could_not_be_stored_is_refused_before_the_pool_is_asked(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore, fields: bytes
) -> None:
    pool = stub(lambda: JSONResponse(WHOLE))
    router = start(pool_url=serve(pool))
    usual = json.dumps(body()).encode()[1:-1]
    response = router.post("/v1/chat/completions", content=b"{" + usual + b"," + fields + b"}")
    assert response.status_code == 400
    assert pool.state.asked == []
    assert counted(router, "ratchet_refused_requests") == {'{status="400"}': 1.0}
    assert counted(router, "ratchet_requests") == counted(router, "ratchet_events_not_stored") == {}


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/feedback"])
def test_client_that_leaves_in_the_middle_of_its_body_is_no_failure(
    start: Start, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    router = start(pool_url=NOWHERE)
    for _ in range(5):
        with socket.create_connection((router.base_url.host, router.base_url.port)) as connection:
            credentials = token()["authorization"]
            head = f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: {credentials}\r\ncontent-length: 1000\r\n\r\n"
            connection.sendall(head.encode() + b'{"model":')
    kind = "ratchet_refused_requests" if "chat" in path else "ratchet_refused_votes"
    until(lambda: any("499" in labels and count == 5 for labels, count in counted(router, kind).items()))
    assert counted(router, "ratchet_requests") == {}
    assert not caplog.records


@pytest.mark.parametrize("is_stream", [False, True])
def test_client_that_leaves_before_its_answer_stops_the_pool_and_is_on_record(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore, is_stream: bool
) -> None:
    left: list[bool] = []
    app = FastAPI()
    app.get("/v1/models")(lambda: {"data": [{"id": "base-model", "parent": None}]})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        await request.body()
        asked.append(True)
        while (await request.receive())["type"] != "http.disconnect":
            pass
        left.append(True)
        return Response()

    asked: list[bool] = []
    router = start(pool_url=serve(app))
    with socket.create_connection((router.base_url.host, router.base_url.port)) as connection:
        content = json.dumps(body(stream=is_stream)).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        until(lambda: bool(asked))
    until(lambda: bool(left), timeout_s=5)
    until(lambda: bool(interactions(lake)))
    [stored] = interactions(lake)
    assert (stored.response, stored.finish_reason) == ("", "abandoned")
    assert counted(router, "ratchet_refused_requests") == {'{status="499"}': 1.0}
    assert counted(router, "ratchet_requests") == {}
    assert counted(router, "ratchet_unfinished_streams") == {'{arm="primary",ending="abandoned"}': 1.0}


BROKEN: dict[str, list[bytes]] = {
    "its first event is the error": [
        b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\n'
    ],
    "it ends without an end": [b'data: {"choices": [{"delta": {"content": "Hel"}, "finish_reason": null}]}\n\n'],
    "it is empty": [],
}


@pytest.mark.parametrize("parts", BROKEN.values(), ids=BROKEN)
def test_stream_that_breaks_off_counts_as_a_failure_of_its_arm(
    start: Start, serve: Callable[[FastAPI], str], parts: list[bytes]
) -> None:
    async def spoken() -> AsyncIterator[bytes]:
        for part in parts:
            yield part

    router = start(pool_url=serve(stub(lambda: StreamingResponse(spoken()))), arm="canary")
    assert ask(router, stream=True).status_code == 200
    assert counted(router, "ratchet_requests") == {'{arm="canary",status="502"}': 1.0}
    assert counted(router, "ratchet_unfinished_streams") == {'{arm="canary",ending="broken_off"}': 1.0}


def test_parts_of_text_and_no_content_beside_tool_calls_are_taken_and_recorded_as_the_pool_got_them(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    got: list[Any] = []
    app = FastAPI()
    app.get("/v1/models")(lambda: {"data": [{"id": "base-model", "parent": None}]})

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        got.extend((await request.json())["messages"])
        return JSONResponse(WHOLE)

    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    said = [
        {"role": "user", "content": [{"type": "text", "text": "Why is"}, {"type": "text", "text": "the sky blue?"}]},
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "content": "Air scatters.", "tool_call_id": "c"},
    ]
    router = start(pool_url=serve(app))
    ask(router, messages=said).raise_for_status()
    assert got == said
    [stored] = interactions(lake)
    assert [one.content for one in stored.messages] == ["Why is\nthe sky blue?", "", "Air scatters."]
    assert stored.messages[1].model_extra == {"tool_calls": calls}


def test_people_who_are_not_named_are_not_one_person(start: Start, lake: LocalStore) -> None:
    router = start(votes_per_minute=2)

    def vote(answer: httpx.Response, **fields: Any) -> int:
        headers = {"authorization": f"Bearer {answer.headers['x-feedback-token']}"}
        return router.post("/v1/feedback", json={"kind": "thumb", "value": 1, **fields}, headers=headers).status_code

    noisy, quiet = (ask(router) for _ in range(2))
    assert [vote(noisy, feedback_id=str(number)) for number in range(3)] == [200, 200, 429]
    assert vote(quiet) == 200
    first, second = (ask(router, metadata={"conversation_id": "c"}) for _ in range(2))
    subjects = {stored.interaction_id: stored.subject_id for stored in interactions(lake)}
    of = [subjects[answer.headers["x-interaction-id"]] for answer in (noisy, quiet, first, second)]
    assert of[2] == of[3]
    assert len(set(of)) == 3


def test_a_tenants_people_who_are_not_named_share_a_bound(start: Start) -> None:
    router = start(pool_url=NOWHERE, votes_per_minute=1)
    statuses = [
        router.post(
            "/v1/feedback", json={"kind": "thumb", "value": 1}, headers=token(subject_id=f"t1/anonymous/{number}")
        ).status_code
        for number in range(12)
    ]
    assert statuses == [200] * 10 + [429] * 2
    other = token(subject_id="t2/anonymous/1", tenant="t2")
    assert router.post("/v1/feedback", json={"kind": "thumb", "value": 1}, headers=other).status_code == 200
