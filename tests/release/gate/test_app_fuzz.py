"""Every endpoint of the gate, fuzzed from its own OpenAPI description: no 5xx, no hang, nothing without a token."""

import time

import httpx
import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ratchet.config import Config
from ratchet.release.gate.app import build_app
from ratchet.release.gate.state import GateState
from ratchet.release.gate.tokens import bearer, hook_token
from ratchet.release.ledger import Ledger, LedgerEntry, read_ledger, request
from ratchet.release.reconciler.kubernetes import ClusterReader
from ratchet.store import Store
from support.release_edges import NEW, OLD, TOKEN, FakeCluster, serving

EXAMPLES = settings(max_examples=15, suppress_health_check=list(HealthCheck), deadline=None)
OPEN = {"/", "/healthz", "/readyz"}


@pytest.fixture
def app(config: Config, lake: Store, cluster: FakeCluster):
    entry = LedgerEntry(event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass")
    request(Ledger(lake), entry)
    cluster.start_run(weight=50)
    with ClusterReader(cluster.url, "ratchet", "adapter-router") as seen:
        yield build_app(GateState(config, lake, seen), TOKEN)


@pytest.fixture
def gate(app: FastAPI):
    with serving(app) as url:
        yield url


@pytest.fixture
def described(app: FastAPI, gate: str):
    schema = schemathesis.openapi.from_dict(app.openapi())
    schema.config.update(base_url=gate)
    return schema


def operations(described) -> list:
    return [found.ok() for found in described.get_all_operations()]


@pytest.mark.parametrize("headers", [{}, bearer(TOKEN), bearer("wrong")], ids=["nobody", "operator", "impostor"])
def test_no_request_breaks_the_gate(described, gate: str, lake: Store, headers: dict[str, str]) -> None:
    for operation in operations(described):
        fuzz(operation, headers)
    assert httpx.get(f"{gate}/healthz", timeout=5).status_code == 200
    if headers != bearer(TOKEN):
        assert [record.event for record in read_ledger(lake)] == ["requested"]


def fuzz(operation, headers: dict[str, str]) -> None:
    @EXAMPLES
    @given(case=operation.as_strategy())
    def one(case) -> None:
        case.headers = {**(case.headers or {}), **headers}
        response = case.call(timeout=5)
        assert response.status_code < 500
        if "/hooks/" in operation.path:
            assert response.status_code in (200, 403, 404)  # 404: a slash in the name
        if headers != bearer(TOKEN) and operation.path not in OPEN:
            assert response.status_code in (401, 403, 404)

    one()


@EXAMPLES
@given(token=st.text(), extra=st.dictionaries(st.text(), st.text(), max_size=3))
def test_no_other_token_opens_a_hook(app_of_one_hook, token: str, extra: dict[str, str]) -> None:
    if token != hook_token(TOKEN):
        answer = app_of_one_hook.post("/hooks/event", json={"metadata": {**extra, "token": token}})
        assert answer.status_code == 403


@pytest.fixture(scope="module")
def app_of_one_hook(tmp_path_factory: pytest.TempPathFactory):
    from fastapi.testclient import TestClient

    from ratchet.store import open_store

    lake = open_store(tmp_path_factory.mktemp("lake"))
    with ClusterReader("http://127.0.0.1:1", "ratchet", "adapter-router") as nowhere:
        yield TestClient(build_app(GateState(Config(), lake, nowhere), TOKEN))
