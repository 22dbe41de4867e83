"""A conversation stays on the arm that began it, while that arm serves, wherever the route sends its later turns."""

import json
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, StreamingResponse

from ratchet.events import Interaction
from ratchet.store import LocalStore
from support.router_client import NOWHERE, Start, ask, body, interactions, like, stub, until, votes

WHOLE = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}
DELTA = {"choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}
CANARY = {"adapter_name": "left", "adapter_version": "1", "adapter_digest": "c" * 64, "arm": "canary"}
PRIMARY = {"adapter_digest": "b" * 64, "arm": "primary"}
KEY = {"authorization": "Bearer k1"}


@pytest.fixture
def arms(start: Start, serve: Callable[[FastAPI], str]) -> Callable[..., tuple[httpx.Client, httpx.Client]]:
    """Both arms' routers; the primary knows the canary as its peer."""

    def arms(canary: dict[str, Any] = CANARY, **settings: Any) -> tuple[httpx.Client, httpx.Client]:
        pool_url = serve(stub(lambda: JSONResponse(WHOLE)))
        there = start(**{"pool_url": pool_url, **canary, "api_keys": "acme=k1,other=k2"})
        here = {"pool_url": pool_url, "peer_url": str(there.base_url), "api_keys": "acme=k1,other=k2", **PRIMARY}
        return start(**{**here, **settings}), there

    return arms


def turn(router: httpx.Client, before: httpx.Response | None = None, key: str = "k1", **fields: Any) -> httpx.Response:
    router.headers["authorization"] = f"Bearer {key}"
    headers = {} if before is None else {"x-feedback-token": before.headers["x-feedback-token"]}
    return router.post("/v1/chat/completions", json=body(**{"user": "u1", **fields}), headers=headers)


def recorded(lake: LocalStore, answer: httpx.Response) -> Interaction:
    [found] = [one for one in interactions(lake) if one.interaction_id == answer.headers["x-interaction-id"]]
    return found


def test_conversation_that_the_canary_began_goes_on_there(arms: Any, lake: LocalStore) -> None:
    primary, canary = arms()
    first = turn(canary)
    later = [turn(primary, first)]
    later.append(turn(primary, later[0]))
    for answer in later:
        assert answer.raise_for_status().json()["choices"] == WHOLE["choices"]
        stored = recorded(lake, answer)
        assert (stored.arm, stored.adapter_digest, stored.adapter_name) == ("canary", "c" * 64, "left")
        began = recorded(lake, first)
        assert began.served_at - 5 < stored.assigned_at <= began.served_at
    assert recorded(lake, first).assigned_at is None, "the route chose its arm"
    like(primary, {"authorization": f"Bearer {later[1].headers['x-feedback-token']}"}).raise_for_status()
    assert [(vote.arm, vote.adapter_digest) for vote in votes(lake)] == [("canary", "c" * 64)]
    assert 'ratchet_forwarded_requests_total{arm="primary"} 2.0' in primary.get("/metrics").text
    assert "ratchet_requests_total{" not in primary.get("/metrics").text, "the canary counts them"


def test_a_forwarded_stream_arrives_whole_and_shows_a_user_no_arm(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    async def spoken() -> AsyncIterator[bytes]:
        yield b"data: " + json.dumps(DELTA).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    pool_url = serve(stub(lambda: StreamingResponse(spoken(), media_type="text/event-stream")))
    canary = start(pool_url=pool_url, **CANARY)
    primary = start(pool_url=pool_url, peer_url=str(canary.base_url), **PRIMARY)
    del primary.headers["x-operator-token"], canary.headers["x-operator-token"]
    first, own = ask(canary, stream=True, user="u1"), ask(primary, stream=True, user="u1")
    later = primary.post(
        "/v1/chat/completions",
        json=body(stream=True, user="u1"),
        headers={"x-feedback-token": first.headers["x-feedback-token"]},
    )
    assert later.content == first.content
    assert recorded(lake, later).arm == "canary"
    varying = {"date", "x-interaction-id", "x-request-id", "x-feedback-token"}
    assert {name: later.headers[name] for name in later.headers if name not in varying} == {
        name: own.headers[name] for name in own.headers if name not in varying
    }


def test_a_forwarded_answer_looks_like_any_other(arms: Any, serve: Callable[[FastAPI], str]) -> None:
    primary, canary = arms()
    for router in (primary, canary):
        del router.headers["x-operator-token"]
    whole = [turn(primary), turn(primary, turn(canary))]
    full = {"pool_url": serve(stub(lambda: JSONResponse(WHOLE, 503))), "retries": 0}
    first = turn(canary)
    primary, canary = arms({**CANARY, **full}, **full)
    del primary.headers["x-operator-token"]
    failed = [turn(primary), turn(primary, first)]
    assert failed[0].content == failed[1].content
    for own, forwarded in (whole, failed):
        names = [[name for name, _ in answer.headers.raw] for answer in (own, forwarded)]
        assert names[0] == names[1]
        assert [own.status_code, own.headers["content-length"]] == [
            forwarded.status_code, forwarded.headers["content-length"]
        ]  # fmt: skip


@pytest.mark.parametrize("fields", [{"user": "u2"}, {"key": "k2"}], ids=["another person", "another tenant"])
def test_nobody_chooses_an_arm_with_the_token_of_somebody_else(arms: Any, lake: LocalStore, fields: Any) -> None:
    primary, canary = arms()
    assert recorded(lake, turn(primary, turn(canary), **fields)).arm == "primary"


def test_a_canary_that_is_gone_or_another_takes_no_conversation(arms: Any, start: Start, lake: LocalStore) -> None:
    primary, canary = arms()
    first = turn(canary)
    for rolled_back in ({"peer_url": NOWHERE}, {"canary": {**CANARY, "adapter_digest": "d" * 64}}, {"peer_url": ""}):
        primary, _ = arms(**rolled_back)
        stored = recorded(lake, turn(primary, first).raise_for_status())
        assert (stored.arm, stored.adapter_digest) == ("primary", "b" * 64)
    promoted, _ = arms(peer_url=NOWHERE, adapter_digest="c" * 64)
    assert recorded(lake, turn(promoted, first)).arm == "primary"


def test_only_a_router_gets_to_know_that_the_arm_is_another(arms: Any) -> None:
    primary, canary = arms()
    first = turn(primary)
    canary.headers["x-ratchet-forwarded"] = first.headers["x-feedback-token"]
    assert turn(canary, first).status_code == 200, "421 would tell that the first answer was not this arm's"


def test_a_client_that_leaves_stops_the_other_arm(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    pool = stub(lambda: JSONResponse(WHOLE), pause_s=1)
    canary = start(pool_url=serve(pool), **CANARY)
    primary = start(pool_url=NOWHERE, peer_url=str(canary.base_url), **PRIMARY)
    token = ask(canary, user="u1").headers["x-feedback-token"]
    content = json.dumps(body(user="u1")).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nx-feedback-token: {token}\r\n"
    with socket.create_connection((primary.base_url.host, primary.base_url.port)) as connection:
        connection.sendall(f"{head}content-length: {len(content)}\r\n\r\n".encode() + content)
        until(lambda: len(pool.state.asked) == 2)
    until(lambda: [one.finish_reason for one in interactions(lake)][1:] == ["abandoned"])
