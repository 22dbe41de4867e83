"""Answers: the adapter's, recorded, and what becomes of trouble with the pool."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response

from ratchet.store import LocalStore
from support.router_client import LEFT, NOWHERE, Start, ask, body, interactions, message, stub


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
    assert router.get("/readyz").json() == {"status": "ready"}
    assert router.get("/poolz").json() == {"status": "serving", "model": config.base_model.model}
    assert ask(router).status_code == 200
    [stored] = interactions(lake)
    assert (stored.base_model, stored.adapter_name) == (config.base_model.model, "base")
    assert stored.conversation_id == stored.interaction_id
    assert stored.subject_id == f"anonymous/{stored.interaction_id}", "who is not named is not everybody"


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


def test_pool_that_stays_busy_is_a_503_that_says_when_to_come_back(
    start: Start, serve: Callable[[FastAPI], str], caplog: pytest.LogCaptureFixture
) -> None:
    pool = stub(lambda: Response("starting", status_code=503, headers={"retry-after": "7"}))
    router = start(pool_url=serve(pool), retries=2)
    response = ask(router)
    assert (response.status_code, response.headers["retry-after"]) == (503, "7")
    assert pool.state.asked == ["base-model"] * 3
    assert 'ratchet_upstream_retries_total{arm="primary"} 2.0' in router.get("/metrics").text, "they count in vain too"
    assert "starting" in caplog.text


def test_late_answer_is_not_asked_for_twice(start: Start, serve: Callable[[FastAPI], str]) -> None:
    pool = stub(Response, pause_s=1)
    assert ask(start(pool_url=serve(pool), timeout_s=0.2, retries=3)).status_code == 504
    assert pool.state.asked == ["base-model"]


@pytest.mark.parametrize("status", [Response(status_code=404), Response(status_code=500)], ids=["lost", "dying"])
def test_base_model_stands_in_where_that_is_wanted_and_everything_says_so(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore, status: Response
) -> None:
    answers = iter([status, JSONResponse(WHOLE)])
    router = start(pool_url=serve(stub(lambda: next(answers))), **LEFT, fallback="base", retries=0)
    response = ask(router)
    assert response.status_code == 200
    told = {name: response.headers[f"x-{name}"] for name in ("fallback", "adapter-name", "adapter-digest")}
    assert told == {"fallback": "base", "adapter-name": "base", "adapter-digest": "base"}
    [stored] = interactions(lake)
    assert (stored.adapter_name, stored.adapter_version, stored.adapter_digest) == ("base", "0", "base")
    assert 'ratchet_fallbacks_total{arm="primary"} 1.0' in router.get("/metrics").text


def test_pool_that_fails_before_its_first_byte_is_asked_again(start: Start, serve: Callable[[FastAPI], str]) -> None:
    """VLLM answers 500 to what is open when it dies, and to all that is new while it drains."""
    answers = iter(
        [Response(status_code=500), JSONResponse(WHOLE), Response(status_code=500), Response(status_code=500)]
    )
    router = start(pool_url=serve(stub(lambda: next(answers))), retries=1)
    assert ask(router).status_code == 200
    assert ask(router).status_code == 502


def test_only_the_public_name_is_served(start: Start, lake: LocalStore) -> None:
    response = ask(start(**LEFT), model="left@v1")
    assert response.status_code == 404
    assert "`assistant`" in message(response)
    assert interactions(lake) == []


@pytest.mark.parametrize("fields", [{"messages": []}, {"messages": ["Hi"]}])
def test_request_that_makes_no_interaction_is_refused(start: Start, fields: dict[str, Any]) -> None:
    response = ask(start(), **fields)
    assert response.status_code == 400
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


def test_pool_that_talks_nonsense_is_a_502(
    start: Start, serve: Callable[[FastAPI], str], lake: LocalStore, caplog: pytest.LogCaptureFixture
) -> None:
    assert ask(start(pool_url=serve(stub(lambda: Response("<html>"))))).status_code == 502
    assert "<html>" in caplog.text
    assert interactions(lake) == []


@pytest.mark.parametrize("models", [Response("<html>"), Response(status_code=500), Response('{"data": []}')])
def test_pool_without_a_model_list_is_not_ready(
    start: Start, serve: Callable[[FastAPI], str], models: Response
) -> None:
    app = FastAPI()
    app.get("/v1/models")(lambda: models)
    router = start(pool_url=serve(app))
    assert router.get("/readyz").status_code == 503
    response = router.get("/poolz")
    assert response.status_code == 503
    assert "lists no" in message(response)


def test_adapter_that_the_pool_lacks_is_not_ready_until_it_is_loaded(
    start: Start, pool: str, adapters: dict[str, Path]
) -> None:
    router = start(adapter_name="late", adapter_version="2")
    assert router.get("/readyz").status_code == 503
    assert "late@v2" in message(router.get("/poolz"))
    assert ask(router).status_code == 502
    named = {"lora_name": "late@v2", "lora_path": str(adapters["right"])}
    httpx.post(f"{pool}/v1/load_lora_adapter", json=named).raise_for_status()
    assert router.get("/readyz").status_code == 200
    assert ask(router).status_code == 200
    httpx.post(f"{pool}/v1/unload_lora_adapter", json=named).raise_for_status()
    assert "late@v2" in message(router.get("/poolz"))
    response = ask(router)
    assert response.status_code == 502
    assert "late" not in message(response)
    assert router.get("/readyz").status_code == 200, "it was ready once, and votes need no pool"


def test_fallback_answers_while_the_adapter_is_lost_and_the_router_stays_in_service(start: Start, pool: str) -> None:
    router = start(adapter_name="never", adapter_version="1", fallback="base")
    assert ask(router).status_code == 200
    assert router.get("/poolz").status_code == 503


def test_body_without_end_is_refused(start: Start) -> None:
    response = start(pool_url=NOWHERE).post("/v1/chat/completions", content=b" " * (5 << 20))
    assert response.status_code == 413
