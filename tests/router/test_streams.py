"""Streams: byte for byte, recorded before they end, whoever breaks them off."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse

from ratchet.events import Interaction
from ratchet.store import LocalStore
from support.router_client import LEFT, FullDisk, Start, ask, body, interactions, stub


def test_stream_passes_byte_for_byte_and_is_recorded_before_it_ends(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    chunks = [
        b'data: {"choices":[{"index":0,"delta":{"content":"Hel"},"finish_reason":null}]}\n\nda',
        b'ta:{"choices":[{"index":0,"delta":{"content":"lo"},"finish_reason":"stop"}]}\n\n',
        b"data: [DONE]\n\n",
    ]
    router = start(pool_url=serve(stub(lambda: StreamingResponse(spaced(chunks), media_type="text/event-stream"))))
    with router.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
        received = b""
        for chunk in response.iter_raw():
            received += chunk
            if b"[DONE]" in received:
                assert [stored.response for stored in interactions(lake)] == ["Hello"]
    assert received == b"".join(chunks)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert interactions(lake)[0].interaction_id == response.headers["x-interaction-id"]


async def spaced(chunks: list[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
        await asyncio.sleep(0.05)


def said(text: str, reason: str | None = None) -> bytes:
    """One event of a stream."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def streaming(*chunks: bytes, then: float = 0) -> Callable[[], Response]:
    async def body() -> AsyncIterator[bytes]:
        async for chunk in spaced([*chunks]):
            yield chunk
        await asyncio.sleep(then)

    return lambda: StreamingResponse(body(), media_type="text/event-stream")


def wait_for(interactions_of: LocalStore, how_many: int = 1) -> list[Interaction]:
    deadline = time.monotonic() + 30
    while len(found := interactions(interactions_of)) < how_many and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_client_that_leaves_midway_leaves_what_it_saw_on_record(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    router = start(pool_url=serve(stub(streaming(said("Hel"), said("lo"), said(" you"), then=60))))
    with router.stream("POST", "/v1/chat/completions", json=body(stream=True)) as response:
        received = b""
        for chunk in response.iter_raw():
            received += chunk
            if b"lo" in received:
                break
    [stored] = wait_for(lake)
    assert stored.interaction_id == response.headers["x-interaction-id"]
    assert (stored.response, stored.finish_reason) == ("Hello", "abandoned")
    assert 'ratchet_unfinished_streams_total{arm="primary",ending="abandoned"} 1.0' in router.get("/metrics").text


def test_stream_that_the_pool_breaks_off_ends_in_an_error_and_what_was_seen_is_on_record(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    router = start(pool_url=serve(stub(streaming(said("Hel"), said("lo"), said(" you")))))
    response = ask(router, stream=True)
    assert response.content.startswith(said("Hel") + said("lo") + said(" you"))
    error = json.loads(response.content.split(b"\n\ndata: ")[-1])["error"]
    assert (error["type"], error["message"]) == ("server_error", "the model pool broke off its answer")
    [stored] = wait_for(lake)
    assert (stored.response, stored.finish_reason) == ("Hello you", "broken_off")


def test_stream_whose_record_is_not_stored_has_no_end(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    pool_url = serve(stub(streaming(said("Hel"), said("lo", "stop"), b"data: [DONE]\n\n")))
    response = ask(start(store=FullDisk(lake.path), pool_url=pool_url), stream=True)
    assert b"[DONE]" not in response.content
    assert "not stored" in json.loads(response.content.split(b"\n\ndata: ")[-1])["error"]["message"]


def test_real_stream_is_recorded_as_the_whole_answer(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT)
    whole = ask(router).json()["choices"][0]["message"]["content"]
    assert ask(router, stream=True).status_code == 200
    assert [stored.response for stored in interactions(lake)] == [whole, whole]
