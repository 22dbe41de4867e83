"""The weighted proxy over real upstreams."""

from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from ratchet.http_service import free_ports
from ratchet.rehearsal import http_route
from ratchet.rehearsal.cluster import Cluster
from ratchet.rehearsal.gateway import choose, gateway
from support.rehearsal_fakes import FakePool, served


@pytest.fixture
def cluster() -> Cluster:
    return Cluster("ratchet")


@pytest.fixture
def upstream() -> Iterator[str]:
    with served(FakePool()) as url:
        yield url


def route(cluster: Cluster, canary_weight: int) -> None:
    canary = {"kind": "Canary", "metadata": {"name": "router"}, "spec": {"targetRef": {"name": "router"}}}
    spec = http_route.route_spec(canary, *http_route.whole(canary_weight))
    cluster.apply({"kind": "HTTPRoute", "metadata": {"name": "router"}, "spec": spec})


def test_share_of_the_canary_is_the_routes_weight(cluster: Cluster) -> None:
    for weight in (0, 20, 100):
        route(cluster, weight)
        chosen = [choose(cluster, "router", step / 1000) for step in range(1000)]
        assert chosen.count("router") == 10 * weight
        assert set(chosen) <= {"router", "router-primary"}


def test_without_a_route_all_traffic_is_the_primarys(cluster: Cluster) -> None:
    assert choose(cluster, "router", 0.0) == "router-primary"


def test_status_body_and_headers_come_through(cluster: Cluster, upstream: str) -> None:
    cluster.set_endpoint("router-primary", upstream)
    with TestClient(gateway(cluster, "router", seed=0)) as user:
        answer = user.post("/v1/chat/completions", json={"model": "m"})
        assert answer.status_code == 200
        assert answer.json()["choices"][0]["message"]["content"] == "from m"
        missing = user.post("/v1/unload_lora_adapter", json={"lora_name": "none"})
        assert missing.status_code == 404
        assert missing.headers["server"].startswith("BaseHTTP"), "the upstream's own header"


def test_no_ready_router_is_a_503_that_names_it(cluster: Cluster) -> None:
    with TestClient(gateway(cluster, "router", seed=0)) as user:
        answer = user.get("/v1/models")
    assert answer.status_code == 503
    assert "router-primary" in answer.json()["error"]["message"]


def test_router_that_went_away_is_a_502(cluster: Cluster) -> None:
    cluster.set_endpoint("router-primary", f"http://127.0.0.1:{free_ports(1)[0]}")
    with TestClient(gateway(cluster, "router", seed=0)) as user:
        assert user.get("/v1/models").status_code == 502


def test_same_seed_gives_the_same_choices(cluster: Cluster, upstream: str) -> None:
    route(cluster, 50)
    cluster.set_endpoint("router-primary", upstream)  # the canary has none, so its requests show as 503

    def statuses(seed: int) -> list[int]:
        with TestClient(gateway(cluster, "router", seed)) as user:
            return [user.get("/v1/models").status_code for _ in range(20)]

    first = statuses(1)
    assert set(first) == {200, 503}
    assert statuses(1) == first
    assert statuses(2) != first
