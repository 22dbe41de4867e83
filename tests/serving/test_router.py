import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ratchet.errors import UserError
from ratchet.events import Feedback, Interaction
from ratchet.lake.landing import landed, lines
from ratchet.serving.credentials import Signer, Ticket
from ratchet.serving.router import create_app
from ratchet.serving.router_settings import RouterSettings
from ratchet.store import LocalStore

Start = Callable[..., httpx.Client]
SECRET = "the secret of every router in these tests"
NOWHERE = "http://127.0.0.1:9"
SERVED = {"interaction_id": "i", "subject_id": "u1", "tenant": "t1", "adapter_digest": "d1", "arm": "canary"}
LEFT = {"adapter_name": "left", "adapter_version": "1", "adapter_digest": "d1"}


class FullDisk(LocalStore):
    def create(self, key: str, data: bytes) -> None:
        raise UserError("no room")  # what is not tried again, for the sake of time


@pytest.fixture
def start(serve: Callable[[FastAPI], str], lake: LocalStore, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start a router before the model server, or before another pool; a client of it."""
    clients: list[httpx.Client] = []

    def start(store: LocalStore = lake, **settings: Any) -> httpx.Client:
        known = {"lake": store.root, "secret": SECRET, **settings}
        known = known if "pool_url" in known else {**known, "pool_url": request.getfixturevalue("pool")}
        url = serve(create_app(RouterSettings(**known), store))
        clients.append(httpx.Client(base_url=url, timeout=60))
        return clients[-1]

    yield start
    for client in clients:
        client.close()


def interactions(lake: LocalStore) -> list[Interaction]:
    found = [line for key in landed(lake, "interaction") for _, line in lines(lake, key)]
    return [Interaction.model_validate_json(line) for line in found]


def votes(lake: LocalStore) -> list[Feedback]:
    return [Feedback.model_validate_json(line) for key in landed(lake, "feedback") for _, line in lines(lake, key)]


def body(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    return {"model": "assistant", "messages": messages, "max_tokens": 8, "temperature": 0, **fields}


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json=body(**fields))


def message(response: httpx.Response) -> str:
    return str(response.json()["error"]["message"])


def test_answer_is_the_adapters_and_its_interaction_is_in_the_lake(start: Start, pool: str, lake: LocalStore) -> None:
    router = start(**LEFT, arm="canary")
    asked = {"user": "u1", "metadata": {"conversation_id": "c1", "tenant": "t1"}, "seed": 3}
    response = ask(router, **asked)
    direct = httpx.post(f"{pool}/v1/chat/completions", json=body(model="left@v1"), timeout=60).json()
    assert response.status_code == 200
    said = response.json()["choices"][0]["message"]["content"]
    assert said == direct["choices"][0]["message"]["content"]
    headers = {
        name: response.headers[f"x-{name}"] for name in ("adapter-name", "adapter-version", "adapter-digest", "arm")
    }
    assert headers == {"adapter-name": "left", "adapter-version": "1", "adapter-digest": "d1", "arm": "canary"}
    [stored] = interactions(lake)
    assert stored.interaction_id == response.headers["x-interaction-id"]
    assert (stored.subject_id, stored.conversation_id, stored.tenant) == ("u1", "c1", "t1")
    assert [m.content for m in stored.messages] == ["Why is the sky blue?"]
    assert (stored.response, stored.finish_reason, stored.completion_tokens) == (said, "length", 8)
    assert (stored.adapter_name, stored.adapter_version, stored.adapter_digest) == ("left", "1", "d1")
    assert stored.arm == "canary"
    assert stored.params == {"max_tokens": 8, "temperature": 0, "seed": 3}
    assert stored.latency_ms > 0
    assert abs(stored.served_at - time.time()) < 60


def test_router_without_adapter_serves_the_base(start: Start, lake: LocalStore, config: Any) -> None:
    router = start()
    assert router.get("/readyz").json() == {"status": "ready", "model": config.base_model.model}
    assert ask(router).status_code == 200
    [stored] = interactions(lake)
    assert (stored.base_model, stored.adapter_name, stored.subject_id) == (config.base_model.model, "base", "anonymous")
    assert stored.conversation_id == stored.interaction_id


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


def stub(answer: Callable[[], Response], pause_s: float = 0) -> FastAPI:
    """A pool at the other end of the wire that answers as told."""
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        cards = [{"id": "base-model", "parent": None}, {"id": "left@v1", "parent": "base-model"}]
        return {"object": "list", "data": cards}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked.append((await request.json())["model"])
        await asyncio.sleep(pause_s)
        return answer()

    asked: list[str] = []
    app.state.asked = asked
    return app


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
    assert response.content.startswith(said("Hel") + said("lo"))
    assert json.loads(response.content.split(b"\n\ndata: ")[-1])["error"]["code"] == 502
    [stored] = wait_for(lake)
    assert (stored.response, stored.finish_reason) == ("Hello", "broken_off")


def test_stream_whose_record_is_not_stored_has_no_end(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    pool_url = serve(stub(streaming(said("Hel"), said("lo", "stop"), b"data: [DONE]\n\n")))
    response = ask(start(store=FullDisk(lake.path), pool_url=pool_url), stream=True)
    assert b"[DONE]" not in response.content
    assert "not stored" in json.loads(response.content.split(b"\n\ndata: ")[-1])["error"]["message"]


WHOLE = {"choices": [{"message": {"content": "Hello"}, "finish_reason": "stop"}]}


def test_busy_pool_is_asked_again_and_the_answer_says_so(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    answers = iter([Response(status_code=503), JSONResponse(WHOLE)])
    router = start(pool_url=serve(stub(lambda: next(answers))), retries=1)
    response = ask(router)
    assert (response.status_code, response.headers["x-upstream-attempts"]) == (200, "2")
    assert 'ratchet_upstream_retries_total{arm="primary"} 1.0' in router.get("/metrics").text
    assert len(interactions(lake)) == 1


def test_pool_that_stays_busy_is_a_502(start: Start, serve: Callable[[FastAPI], str]) -> None:
    pool = stub(lambda: Response("starting", status_code=503))
    response = ask(start(pool_url=serve(pool), retries=2))
    assert response.status_code == 502
    assert "answers 503: b'starting'" in message(response)
    assert pool.state.asked == ["base-model"] * 3


def test_late_answer_is_not_asked_for_twice(start: Start, serve: Callable[[FastAPI], str]) -> None:
    pool = stub(Response, pause_s=1)
    assert ask(start(pool_url=serve(pool), timeout_s=0.2, retries=3)).status_code == 504
    assert pool.state.asked == ["base-model"]


def test_base_model_stands_in_where_that_is_wanted_and_everything_says_so(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore
) -> None:
    answers = iter([Response(status_code=500), Response(status_code=404), JSONResponse(WHOLE)])
    router = start(pool_url=serve(stub(lambda: next(answers))), **LEFT, fallback="base", retries=0)
    assert ask(router).status_code == 500, "what the pool answers is passed on"
    response = ask(router)
    assert response.status_code == 200
    told = {name: response.headers[f"x-{name}"] for name in ("fallback", "adapter-name", "adapter-digest")}
    assert told == {"fallback": "base", "adapter-name": "base", "adapter-digest": "base"}
    [stored] = interactions(lake)
    assert (stored.adapter_name, stored.adapter_version, stored.adapter_digest) == ("base", "0", "base")
    assert 'ratchet_fallbacks_total{arm="primary"} 1.0' in router.get("/metrics").text


def test_real_stream_is_recorded_as_the_whole_answer(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT)
    whole = ask(router).json()["choices"][0]["message"]["content"]
    assert ask(router, stream=True).status_code == 200
    assert [stored.response for stored in interactions(lake)] == [whole, whole]


def test_only_the_public_name_is_served(start: Start, lake: LocalStore) -> None:
    response = ask(start(**LEFT), model="left@v1")
    assert response.status_code == 404
    assert "`assistant`" in message(response)
    assert interactions(lake) == []


@pytest.mark.parametrize("fields", [{"messages": []}, {"n": 2}, {"messages": [{"role": "user"}]}, {"user": ""}])
def test_request_that_makes_no_interaction_is_refused(start: Start, fields: dict[str, Any]) -> None:
    response = ask(start(), **fields)
    assert response.status_code == 422
    assert next(iter(fields)) in message(response)


def test_pools_refusal_passes_through_unrecorded(start: Start, lake: LocalStore) -> None:
    response = ask(start(**LEFT), max_tokens=600)
    assert response.status_code == 400
    assert "holds 512 tokens" in message(response)
    assert "x-interaction-id" not in response.headers
    assert interactions(lake) == []


def test_pool_that_is_down_is_a_502_in_json(start: Start, lake: LocalStore) -> None:
    router = start(pool_url=NOWHERE, arm="canary")
    response = ask(router)
    assert response.status_code == 502
    assert "cannot be reached" in message(response)
    assert router.get("/healthz").status_code == 200
    assert router.get("/readyz").status_code == 503
    assert interactions(lake) == []
    assert 'ratchet_requests_total{arm="canary",status="502"} 1.0' in router.get("/metrics").text


def test_pool_that_takes_too_long_is_a_504(start: Start, serve: Callable[[FastAPI], str], lake: LocalStore) -> None:
    router = start(pool_url=serve(stub(Response, pause_s=1)), timeout_s=0.2)
    assert ask(router).status_code == 504
    assert interactions(lake) == []


def test_pool_that_talks_nonsense_is_a_502(start: Start, serve: Callable[[FastAPI], str], lake: LocalStore) -> None:
    response = ask(start(pool_url=serve(stub(lambda: Response("<html>")))))
    assert response.status_code == 502
    assert "<html>" in message(response)
    assert interactions(lake) == []


@pytest.mark.parametrize("models", [Response("<html>"), Response(status_code=500), Response('{"data": []}')])
def test_pool_without_a_model_list_is_not_ready(
    start: Start, serve: Callable[[FastAPI], str], models: Response
) -> None:
    app = FastAPI()
    app.get("/v1/models")(lambda: models)
    response = start(pool_url=serve(app)).get("/readyz")
    assert response.status_code == 503
    assert "lists no" in message(response)


def test_adapter_that_the_pool_lacks_is_not_ready_until_it_is_loaded(
    start: Start, pool: str, adapters: dict[str, Path]
) -> None:
    router = start(adapter_name="late", adapter_version="2")
    assert "late@v2" in message(router.get("/readyz"))
    assert ask(router).status_code == 502
    named = {"lora_name": "late@v2", "lora_path": str(adapters["right"])}
    httpx.post(f"{pool}/v1/load_lora_adapter", json=named).raise_for_status()
    assert router.get("/readyz").status_code == 200
    assert ask(router).status_code == 200
    httpx.post(f"{pool}/v1/unload_lora_adapter", json=named).raise_for_status()
    assert router.get("/readyz").status_code == 503
    response = ask(router)
    assert response.status_code == 502
    assert "late@v2" in message(response)


def token(**served: str) -> dict[str, str]:
    """The headers of whoever was served this."""
    return {"authorization": f"Bearer {Signer([SECRET]).sign(Ticket(**{**SERVED, **served}))}"}


def like(router: httpx.Client, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return router.post("/v1/feedback", json={"kind": "thumb", "value": 1, **fields}, headers=headers)


def test_answer_brings_the_token_to_vote_on_it_at_either_arm(start: Start, lake: LocalStore) -> None:
    answer = ask(start(**LEFT, arm="canary"), user="u1", metadata={"tenant": "t1"})
    primary = start(pool_url=NOWHERE, arm="primary")
    like(primary, {"authorization": f"Bearer {answer.headers['x-feedback-token']}"}).raise_for_status()
    [stored] = votes(lake)
    assert (stored.interaction_id, stored.subject_id) == (answer.headers["x-interaction-id"], "u1")
    assert stored.model_extra == {"tenant": "t1", "adapter_digest": "d1", "arm": "canary"}


def test_vote_is_stored_under_an_id_that_repeats(start: Start, lake: LocalStore) -> None:
    router = start(pool_url=NOWHERE, arm="canary")
    ids = [like(router, token()).raise_for_status().json()["feedback_id"] for _ in range(2)]
    assert ids[0] == ids[1]
    assert {stored.feedback_id for stored in votes(lake)} == {ids[0]}
    assert 'ratchet_votes_total{arm="canary",kind="thumb",value="1.0"} 2.0' in router.get("/metrics").text


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer nonsense"},
        {"authorization": "Basic dTE6eA=="},
        {"authorization": token()["authorization"][:-1]},
        {"authorization": f"Bearer {Signer(['another secret']).sign(Ticket(**SERVED))}"},
    ],
    ids=["none", "nonsense", "basic", "cut", "another-secret"],
)
def test_nobody_votes_without_a_token_of_ours(start: Start, lake: LocalStore, headers: dict[str, str]) -> None:
    response = like(start(pool_url=NOWHERE), headers)
    assert response.status_code == 401
    assert "x-feedback-token" in message(response)
    assert response.headers["www-authenticate"] == "Bearer"
    assert votes(lake) == []


def test_token_cannot_be_turned_into_another_subjects(start: Start, lake: LocalStore) -> None:
    said, _, signature = token()["authorization"].removeprefix("Bearer ").partition(".")
    other, _, _ = token(subject_id="u2")["authorization"].removeprefix("Bearer ").partition(".")
    router = start()
    assert like(router, {"authorization": f"Bearer {other}.{signature}"}).status_code == 401
    assert like(router, token(), subject_id="u2").status_code == 422
    like(router, {"authorization": f"Bearer {said}.{signature}"}).raise_for_status()
    assert [stored.subject_id for stored in votes(lake)] == ["u1"]


def test_token_of_the_old_secret_counts_while_the_secret_is_changed(start: Start) -> None:
    assert like(start(pool_url=NOWHERE, secret=f"{SECRET[::-1]},{SECRET}"), token()).status_code == 200
    assert like(start(pool_url=NOWHERE, secret=SECRET[::-1]), token()).status_code == 401


def test_where_tenants_have_keys_nobody_asks_without_one(start: Start, lake: LocalStore) -> None:
    router = start(**LEFT, api_keys="acme=k1,other=k2")
    assert ask(router).status_code == 401
    router.headers["authorization"] = "Bearer wrong"
    assert ask(router).status_code == 401
    router.headers["authorization"] = "Bearer k1"
    assert ask(router, user="u1", metadata={"tenant": "other"}).status_code == 200
    [stored] = interactions(lake)
    assert (stored.tenant, stored.subject_id) == ("acme", "acme/u1")


def test_subject_that_votes_too_often_has_to_wait_and_nobody_else_has(start: Start, lake: LocalStore) -> None:
    router = start(pool_url=NOWHERE, votes_per_minute=2)
    statuses = [like(router, token(interaction_id=f"i{number}")).status_code for number in range(3)]
    assert statuses == [200, 200, 429]
    assert 1 <= int(like(router, token(interaction_id="i9")).headers["retry-after"]) <= 30
    assert like(router, token(subject_id="u2")).status_code == 200
    assert len(votes(lake)) == 3


def test_vote_that_means_nothing_is_refused_and_says_what_would(start: Start, lake: LocalStore) -> None:
    router = start()
    response = like(router, token(), kind="rating", value=11)
    assert response.status_code == 422
    assert "a rating is a whole number from 1 to 5; given 11" in message(response)
    response = like(router, token(), kind="clap")
    assert response.status_code == 422
    assert "'thumb', 'rating', 'correction'" in message(response)
    assert votes(lake) == []


def test_nothing_is_acknowledged_that_is_not_stored(start: Start, lake: LocalStore) -> None:
    router = start(store=FullDisk(lake.path))
    for response in (like(router, token()), ask(router)):
        assert response.status_code == 503
        assert message(response).startswith("not stored, try again")
        assert int(response.headers["retry-after"]) > 0
    metrics = router.get("/metrics").text
    assert "ratchet_votes_total{" not in metrics
    assert 'ratchet_events_not_stored_total{arm="primary"} 2.0' in metrics


def test_body_without_end_is_refused(start: Start) -> None:
    response = start(pool_url=NOWHERE).post("/v1/chat/completions", content=b" " * (5 << 20))
    assert response.status_code == 413


@pytest.fixture
def process(lake: LocalStore) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start the router's own command with these RATCHET_ variables; killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def process(**env: str) -> subprocess.Popen[str]:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")}
        own = {f"RATCHET_{name.upper()}": value for name, value in {"secret": SECRET, **env}.items()}
        command = [sys.executable, "-m", "ratchet.serving.router"]
        started.append(subprocess.Popen(command, env={**plain, **own}, stderr=subprocess.PIPE, text=True))
        return started[-1]

    yield process
    for one in started:
        one.kill()
        one.communicate()


def test_acknowledged_vote_survives_sigkill(process: Callable[..., subprocess.Popen[str]], lake: LocalStore) -> None:
    router = process(pool_url=NOWHERE, lake=lake.root, port="0")
    assert router.stderr
    url = router.stderr.readline().removeprefix("router: ").strip()
    vote = {"kind": "thumb", "value": -1}
    response = httpx.post(f"{url}/v1/feedback", json=vote, headers=token(), timeout=30)
    router.send_signal(signal.SIGKILL)
    router.wait()
    assert [stored.feedback_id for stored in votes(lake)] == [response.json()["feedback_id"]]


def test_port_in_use_is_one_line_and_exit_code_2(
    process: Callable[..., subprocess.Popen[str]], lake: LocalStore
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        router = process(pool_url=NOWHERE, lake=lake.root, port=port)
        _, errors = router.communicate(timeout=60)
    assert router.returncode == 2
    assert f"127.0.0.1:{port}" in errors
    assert errors.count("\n") == 1


def test_settings_come_from_the_environment() -> None:
    env = {
        "RATCHET_POOL_URL": "http://pool", "RATCHET_LAKE": "s3://lake", "RATCHET_ADAPTER_NAME": "left",
        "RATCHET_ADAPTER_VERSION": "3", "RATCHET_ARM": "adapter-router", "RATCHET_PORT": "81", "RATCHET_SECRET": SECRET,
    }  # fmt: skip
    settings = RouterSettings.from_env(env)
    assert (settings.pool_model, settings.arm, settings.port) == ("left@v3", "canary", 81)
    assert RouterSettings.from_env({**env, "RATCHET_ARM": "adapter-router-primary"}).arm == "primary"
    assert RouterSettings.from_env({**env, "RATCHET_ADAPTER_NAME": "base"}).pool_model is None
    with pytest.raises(UserError, match="RATCHET_POOL_URL"):
        RouterSettings.from_env({})
    with pytest.raises(UserError, match="RATCHET_PORT = 'http' is not a number"):
        RouterSettings.from_env({**env, "RATCHET_PORT": "http"})
    with pytest.raises(UserError, match="RATCHET_FALLBACK = 'other': known are none, base"):
        RouterSettings.from_env({**env, "RATCHET_FALLBACK": "other"})


def test_router_without_credentials_does_not_start_where_others_reach_it() -> None:
    env = {"RATCHET_POOL_URL": "http://pool", "RATCHET_LAKE": "s3://lake", "RATCHET_SECRET": SECRET}
    with pytest.raises(UserError, match="RATCHET_SECRET must have 32 characters"):
        RouterSettings.from_env({**env, "RATCHET_SECRET": f"{SECRET},short"})
    with pytest.raises(UserError, match="anyone could ask, and vote, as anyone"):
        RouterSettings.from_env({**env, "RATCHET_HOST": "0.0.0.0"})
    with pytest.raises(UserError, match="RATCHET_API_KEYS cannot be read: write tenant=key"):
        RouterSettings.from_env({**env, "RATCHET_API_KEYS": "justakey"})
    settings = RouterSettings.from_env({**env, "RATCHET_HOST": "0.0.0.0", "RATCHET_API_KEYS": "acme=hidden"})
    assert SECRET not in repr(settings)
    assert "hidden" not in repr(settings)


def test_router_imports_nothing_that_touches_a_model() -> None:
    heavy = {"torch", "transformers", "peft", "polars", "mlflow", "pyarrow", "deltalake"}
    code = f"import sys, ratchet.serving.router; print(sorted({heavy!r} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
