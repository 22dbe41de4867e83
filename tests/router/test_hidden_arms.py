"""Nothing that a voter receives tells which arm, adapter or version answered; who may know it is told."""

import json
from base64 import urlsafe_b64decode
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ratchet.router.tokens import Signer, Ticket
from ratchet.store import LocalStore
from support.router_client import LEFT, SECRET, Start, ask, interactions, like, stub

COMPLETION = {
    "id": "chatcmpl-1",
    "model": "left@v1",
    "choices": [{"message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
}
DELTA = {"id": "chatcmpl-1", "model": "left@v1", "choices": [{"delta": {"content": "Hello"}, "finish_reason": "stop"}]}
TELLING = ("left", "@v1", "canary", "primary", "d1d1d1")
ARM = {**LEFT, "adapter_digest": "d1" * 32, "arm": "canary"}


def spoken(cut: int) -> Callable[[], Response]:
    """A stream whose one event arrives in two parts, cut anywhere."""
    event = b"data: " + json.dumps(DELTA).encode() + b"\n\ndata: [DONE]\n\n"

    async def parts():
        for part in (event[:cut], event[cut:]):
            yield part

    return lambda: StreamingResponse(parts(), media_type="text/event-stream")


REFUSED = {"error": {"message": "The model `left@v1` holds 512 tokens.", "code": 400}}
ANSWERS: dict[str, Callable[[], Response]] = {
    "whole": lambda: JSONResponse(COMPLETION),
    "stream": spoken(9999),
    "stream cut inside the name": spoken(6 + json.dumps(DELTA).index("left") + 2),
    "refused by the pool": lambda: JSONResponse(REFUSED, 400),
    "failed": lambda: Response("left@v1 died", status_code=500),
    "lost": lambda: Response(status_code=404),
    "nonsense": lambda: Response('{"model": "left@v1"}'),
    "broken off": lambda: StreamingResponse(iter([b'data: {"model": "left@v1"}\n\n']), media_type="text/event-stream"),
}


@pytest.mark.parametrize("fallback", ["none", "base"])
@pytest.mark.parametrize("what", ANSWERS)
def test_a_user_cannot_tell_what_answered(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore, what: str, fallback: str
) -> None:
    router = start(pool_url=serve(stub(ANSWERS[what])), **ARM, fallback=fallback)
    del router.headers["x-operator-token"]
    response = ask(router, stream="stream" in what or what == "broken off")
    told = str(dict(response.headers)) + response.text
    assert not [word for word in TELLING if word in told]
    assert "base-model" not in told
    if response.status_code == 200 and what != "broken off":
        token = response.headers["x-feedback-token"]
        assert not [word for word in TELLING if word.encode() in urlsafe_b64decode(token)]
        vote = like(router, {"authorization": f"Bearer {token}"}).raise_for_status()
        assert not [word for word in TELLING if word in vote.text]
        assert interactions(lake)[0].adapter_digest in (ARM["adapter_digest"], "base")


def test_the_model_of_an_answer_is_the_public_one(start: Start, serve: Callable[[FastAPI], str]) -> None:
    router = start(pool_url=serve(stub(ANSWERS["whole"])), **ARM)
    whole = ask(router)
    assert whole.json() == {**COMPLETION, "model": "assistant", "id": whole.headers["x-request-id"]}
    router = start(pool_url=serve(stub(ANSWERS["stream cut inside the name"])), **ARM)
    streamed = ask(router, stream=True)
    events = streamed.content.split(b"\n\n")
    own = {"model": "assistant", "id": streamed.headers["x-request-id"]}
    assert json.loads(events[0].removeprefix(b"data: ")) == {**DELTA, **own}
    assert events[1:] == [b"data: [DONE]", b""]


def test_the_length_of_a_token_or_an_id_tells_nothing_of_its_arm() -> None:
    signer = Signer([SECRET])

    def length(arm: str, digest: str, subject: str) -> tuple[int, int]:
        ticket = Ticket(interaction_id="1" * 32, subject_id=subject, tenant="t", adapter_digest=digest, arm=arm)
        assert signer.read(signer.sign(ticket)) == ticket
        assert signer.unseal(signer.seal(ticket)) == ticket
        return len(signer.sign(ticket)), len(signer.seal(ticket))

    for letters in range(1, 40):
        kinds = [("primary", "a" * 64), ("canary", "b" * 64), ("canary", "base"), ("primary", "base")]
        assert len({length(arm, digest, "u" * letters) for arm, digest in kinds}) == 1


@pytest.mark.parametrize("given", [None, "wrong"])
def test_only_the_operators_token_shows_arms_metrics_and_the_pool(start: Start, given: str | None) -> None:
    router = start(**LEFT, arm="canary", operator_token="the operators' own")
    router.headers.pop("x-operator-token")
    headers = {} if given is None else {"x-operator-token": given, "authorization": f"Bearer {given}"}
    assert [router.get(path, headers=headers).status_code for path in ("/metrics", "/poolz")] == [401, 401]
    asked = router.post("/v1/chat/completions", headers=headers, json=BODY)
    assert "x-arm" not in asked.headers
    known = {"authorization": "Bearer the operators' own"}
    assert [router.get(path, headers=known).status_code for path in ("/metrics", "/poolz")] == [200, 200]
    asked = router.post("/v1/chat/completions", headers={"x-operator-token": "the operators' own"}, json=BODY)
    assert (asked.headers["x-arm"], asked.headers["x-adapter-name"]) == ("canary", "left")


BODY = {"model": "assistant", "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}]}


def test_a_router_that_others_reach_and_that_has_no_token_shows_nobody(start: Start) -> None:
    router = start(**LEFT, host="0.0.0.0", api_keys="acme=" + "k" * 16)
    assert router.get("/metrics").status_code == 401
    key = {"authorization": "Bearer " + "k" * 16}
    assert "x-arm" not in router.post("/v1/chat/completions", headers=key, json=BODY).headers


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_no_service_describes_itself(start: Start, path: str) -> None:
    assert start().get(path).status_code == 404


def test_a_model_of_any_name_is_served(start: Start, serve: Callable[[FastAPI], str], lake: LocalStore) -> None:
    app = stub(lambda: JSONResponse(COMPLETION))
    cards = [{"id": "base-model", "parent": None}, {"id": "适配器@v1", "parent": "base-model"}]
    app.router.routes[:] = [route for route in app.routes if getattr(route, "path", "") != "/v1/models"]
    app.get("/v1/models")(lambda: {"data": cards})
    response = ask(start(pool_url=serve(app), adapter_name="适配器", adapter_version="1"))
    assert response.status_code == 200
    assert response.headers["x-adapter-name"] == "%E9%80%82%E9%85%8D%E5%99%A8"
    assert interactions(lake)[0].adapter_name == "适配器"


def test_the_pools_credentials_are_told_to_nobody(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    router = start(pool_url="http://somebody:hunter2@127.0.0.1:9")
    told = ask(router).text + router.get("/readyz").text + router.get("/poolz").text + caplog.text
    assert "cannot be reached" in told
    assert "hunter2" not in told
