"""What anybody who reaches the gate can send it: little of it is read, and nothing of it forges a line of the log."""

import json
import logging
import socket
from collections.abc import Iterator
from urllib.parse import quote

import httpx
import pytest

from ratchet.config import Config
from ratchet.release.gate.app import build_app
from ratchet.release.gate.state import GateState
from ratchet.release.gate.tokens import bearer, hook_token
from ratchet.release.reconciler.kubernetes import ClusterReader
from ratchet.store import Store
from support.release_edges import TOKEN, FakeCluster, serving


@pytest.fixture
def gate(config: Config, lake: Store, cluster: FakeCluster) -> Iterator[str]:
    with (
        ClusterReader(cluster.url, "ratchet", "adapter-router") as seen,
        serving(build_app(GateState(config, lake, seen), TOKEN)) as url,
    ):
        yield url


def head_alone(url: str, path: str, length: int) -> bytes:
    """The answer to a request of which only the head is ever sent."""
    place = httpx.URL(url)
    with socket.create_connection((place.host, place.port), timeout=5) as connection:
        connection.sendall(f"POST {path} HTTP/1.1\r\nhost: gate\r\ncontent-length: {length}\r\n\r\n".encode())
        answer = b""
        while part := connection.recv(65536):
            answer += part
    return answer


@pytest.mark.parametrize("path", ["/abort", "/state", "/releases", "/metrics"])
def test_nobody_without_the_token_has_a_body_read(gate: str, path: str) -> None:
    answer = head_alone(gate, path, 200 << 20)
    assert answer.startswith((b"HTTP/1.1 401", b"HTTP/1.1 405")), "before any of the body was sent"
    assert b"connection: close" in answer


def test_body_of_a_hook_is_small_or_refused_unread(gate: str) -> None:
    assert head_alone(gate, "/hooks/rollback", 200 << 20).startswith(b"HTTP/1.1 403")
    numbers = {"metadata": {str(number): "" for number in range(2000)} | {"token": hook_token(TOKEN)}}
    answer = httpx.post(f"{gate}/hooks/event", json=numbers)
    assert answer.status_code == 403
    assert "values" in answer.json()["why"]


def test_no_request_forges_or_floods_the_log(gate: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    forged = quote("x\n2026-01-01 ratchet.gate rollback: yes, FORGED\x1b[2J")
    known = {"metadata": {"token": hook_token(TOKEN)}}
    for body in (known, {"metadata": {"token": "wrong"}}, {"metadata": {"x" * 30_000 + "\n": 1}}):
        answer = httpx.post(f"{gate}/hooks/{forged}", content=json.dumps(body))
        assert answer.status_code == 403
        assert len(answer.content) < 2000
    httpx.post(f"{gate}/hooks/{'y' * 20_000}", json=known)
    lines = [record.getMessage() for record in caplog.records if record.name == "ratchet.gate"]
    assert len(lines) == 4
    assert not [line for line in lines if not line.isprintable() or len(line) > 1000]


def test_board_can_be_neither_framed_nor_led_elsewhere(gate: str) -> None:
    headers = httpx.get(f"{gate}/").headers
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert (headers["x-frame-options"], headers["referrer-policy"]) == ("DENY", "no-referrer")


@pytest.mark.parametrize("path", ["/docs", "/redoc", "/openapi.json"])
def test_gate_does_not_describe_itself(gate: str, path: str) -> None:
    assert httpx.get(f"{gate}{path}", headers=bearer(TOKEN)).status_code == 404
