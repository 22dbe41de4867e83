"""Every endpoint of every service, fuzzed from its own OpenAPI description: no 5xx, no hang, whatever is sent.

Then bodies that no description yields: what JSON's grammar, or Python's reading of it, allows and others cannot take.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import one_of
from schemathesis.generation import GenerationMode

from ratchet.config import Config
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.inference.server import create_app as model_server
from ratchet.inference.syncer import Syncer
from ratchet.inference.syncer import create_app as syncer
from ratchet.release.ledger import Ledger
from ratchet.router.app import create_app as router
from ratchet.router.settings import RouterSettings
from ratchet.router.tokens import Signer, Ticket
from ratchet.store import LocalStore
from support.http_server import Serve, running
from support.router_client import OPERATOR

SECRET = "the secret of the router that is fuzzed"
TIMEOUT_S = 20
NUM_EXAMPLES = 20
NUM_BODIES = 150


@pytest.fixture(scope="module")
def server(config: Config) -> FastAPI:
    """A model server of its own: what is sent may load and unload adapters."""
    return model_server(config)


@pytest.fixture(scope="module")
def pool(server: FastAPI) -> Iterator[str]:
    with running(server) as url:
        yield url


def fuzz(app: FastAPI, url: str, bearer: str = "") -> dict[str, set[int]]:
    """The statuses that each operation answered."""
    headers = {"authorization": f"Bearer {bearer}"} if bearer else {}
    described = schemathesis.openapi.from_dict(app.openapi())
    described.config.update(base_url=url)
    operations = [found.ok() for found in described.get_all_operations()]
    return {operation.label: statuses_of(operation, headers) for operation in operations}


def statuses_of(operation: Any, headers: dict[str, str]) -> set[int]:
    seen: set[int] = set()
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if operation.body else (GenerationMode.POSITIVE,)

    @settings(max_examples=NUM_EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(case=one_of(*(operation.as_strategy(generation_mode=mode) for mode in modes)))
    def send(case: schemathesis.Case) -> None:
        response = case.call(headers=headers, timeout=TIMEOUT_S)
        seen.add(response.status_code)
        assert response.status_code < 500, f"{response.status_code} {response.text[:300]} to {case.as_curl_command()}"

    send()
    return seen


def test_router_holds(serve: Serve, lake: LocalStore, pool: str) -> None:
    app = router(RouterSettings(pool_url=pool, lake=lake.root, secret=SECRET, votes_per_minute=1_000_000), lake)
    url = serve(app)
    assert 401 in fuzz(app, url)["POST /v1/feedback"]
    ticket = Ticket(interaction_id="i", subject_id="u", tenant="t", adapter_digest="d", arm="primary")
    assert {200, 400} <= fuzz(app, url, Signer([SECRET]).sign(ticket))["POST /v1/feedback"]


def test_model_server_holds(server: FastAPI, pool: str) -> None:
    assert {400, 404} & fuzz(server, pool)["POST /v1/load_lora_adapter"]


def test_syncer_holds(serve: Serve, lake: LocalStore, tmp_path: Path) -> None:
    app = syncer(Syncer(Ledger(lake), AdapterPool("http://127.0.0.1:9", tmp_path), 4), poll_s=60)
    url = serve(app)
    while httpx.get(f"{url}/readyz").status_code != 200:  # with nothing to load, the first pass makes it ready
        time.sleep(0.01)
    assert fuzz(app, url)["GET /readyz"] == {200}


WORDS = rb'"\ud83d" "\udc00a" NaN Infinity -Infinity 1e999 -1 0.1 null true "" "\u0000" "\x"'
DEEP = [b"[" * 300 + b"]" * 300, b'{"a":' * 300 + b"1" + b"}" * 300]
LEAVES = st.sampled_from([*WORDS.split(), b'"\xff"', b"9" * 5000, *DEEP])
ASKED = {"model": b'"assistant"', "messages": b'[{"role":"user","content":"Hi"}]', "max_tokens": b"2"}
VOTED = {"kind": b'"thumb"', "value": b"1"}
KEYS = st.sampled_from([*ASKED, *VOTED, "stream", "n", "user", "metadata", "seed", "is_tie", "x", r"\ud800"])
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: b"[" + b",".join(parts) + b"]")
        | st.dictionaries(KEYS, inner, max_size=3).map(lambda fields: written(fields))
    ),
    max_leaves=6,
)


def written(fields: dict[str, bytes]) -> bytes:
    return b"{" + b",".join(f'"{key}":'.encode() + value for key, value in fields.items()) + b"}"


def bodies(usual: dict[str, bytes]) -> st.SearchStrategy[bytes]:
    """A usual body with some of its fields replaced, cut somewhere or not, or no such body at all."""
    replaced = st.dictionaries(KEYS, VALUES, max_size=3).map(lambda fields: written({**usual, **fields}))
    named = st.builds(
        lambda role, content: written({**usual, "messages": written({"role": role, "content": content})}),
        VALUES,
        VALUES,
    )
    cut = st.builds(lambda body, share: body[: int(len(body) * share)], replaced, st.floats(0, 1))
    return replaced | named | cut | VALUES | st.binary(max_size=50)


@pytest.mark.parametrize(("path", "usual"), [("/v1/chat/completions", ASKED), ("/v1/feedback", VOTED)])
def test_no_body_that_a_client_can_send_is_a_failure_of_the_router(
    serve: Serve, lake: LocalStore, pool: str, path: str, usual: dict[str, bytes]
) -> None:
    known = RouterSettings(pool_url=pool, lake=lake.root, secret=SECRET, votes_per_minute=1_000_000, retries=0)
    ticket = Ticket(interaction_id="i", subject_id="u", tenant="t", adapter_digest="d", arm="primary")
    headers = {"authorization": f"Bearer {Signer([SECRET]).sign(ticket)}"} | OPERATOR
    with httpx.Client(base_url=serve(router(known, lake)), headers=headers, timeout=TIMEOUT_S) as client:
        send_bodies(client, path, usual)
        metrics = client.get("/metrics").text
    assert 'ratchet_events_not_stored_total{arm="primary"}' not in metrics
    assert not [line for line in metrics.splitlines() if line.startswith("ratchet_requests_total") and '"5' in line]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/load_lora_adapter"])
def test_no_body_that_a_client_can_send_is_a_failure_of_the_model_server(pool: str, config: Config, path: str) -> None:
    model = f'"{config.base_model.model}"'.encode()
    with httpx.Client(base_url=pool, timeout=TIMEOUT_S) as client:
        send_bodies(client, path, {**ASKED, "model": model, "lora_name": b'"x"', "lora_path": b'"/nowhere"'})


def send_bodies(client: httpx.Client, path: str, usual: dict[str, bytes]) -> None:
    @settings(max_examples=NUM_BODIES, suppress_health_check=list(HealthCheck), database=None, deadline=None)
    @given(body=bodies(usual))
    def send(body: bytes) -> None:
        response = client.post(path, content=body, headers={"content-type": "application/json"})
        assert response.status_code < 500, f"{response.status_code} {response.text[:300]} to {body[:300]!r}"
        assert len(response.content) < 10_000

    send()
