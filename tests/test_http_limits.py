"""The limits of every HTTP service, over real sockets: what is too large, too slow, too many or no JSON."""

import json
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import Request
from fastapi.responses import JSONResponse
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from ratchet import http_limits
from ratchet.http_limits import Limits, num_tokens, parse_json
from ratchet.http_service import in_shape, new_service, printable, read_json
from support.http_server import running


class Shape(BaseModel):
    number: int


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[httpx.URL]:
    monkeypatch.setattr(http_limits, "HEAD_S", 0.3)
    app = new_service("tested", limits=Limits(body_bytes=10_000, held_bytes=15_000, body_s=0.5))

    @app.post("/by-us")
    async def by_us(request: Request) -> JSONResponse:
        return JSONResponse(in_shape(await read_json(request), Shape).number)

    @app.post("/by-fastapi")
    async def by_fastapi(shape: Shape) -> int:
        return shape.number

    with running(app) as url:
        yield httpx.URL(url)


def said_to(service: httpx.URL, *parts: bytes) -> bytes:
    """All that comes back until the service closes the connection."""
    with socket.create_connection((service.host, service.port), timeout=10) as connection:
        answer = b""
        with suppress(ConnectionError):
            for part in parts:
                connection.sendall(part)
            while part := connection.recv(65536):
                answer += part
        return answer


def post(*headers: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST /by-us HTTP/1.1", b"host: x", *headers, b"", body])


@pytest.mark.parametrize(
    "head",
    [
        post(b"x-long: " + b"a" * 40_000),
        post(*(b"x-%d: a" % number for number in range(150))),
        b"POST /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n",
        post(b"x-long: " + b"a" * 40_000).rstrip(b"\r\n"),
    ],
    ids=["long", "many", "long path", "without end"],
)
def test_head_that_is_too_large_is_refused(service: httpx.URL, head: bytes) -> None:
    assert said_to(service, head).startswith(b"HTTP/1.1 431")


def test_trailers_and_chunk_names_are_bounded_as_heads_are(service: httpx.URL) -> None:
    chunked = post(b"transfer-encoding: chunked", body=b'd\r\n{"number": 3}\r\n0\r\n')
    answer = said_to(service, chunked, *([b"x-more: " + b"a" * 1000 + b"\r\n"] * 100))
    assert b" 200 " not in answer


@pytest.mark.parametrize("part", [b"", b"POST /by-us HTTP/1.1\r\nx-slow: "], ids=["nothing", "half a head"])
def test_connection_that_says_no_request_is_closed(service: httpx.URL, part: bytes) -> None:
    started = time.monotonic()
    assert said_to(service, part) == b""
    assert 0.2 < time.monotonic() - started < 5


def test_body_that_is_too_slow_or_too_large_ends_the_connection(service: httpx.URL) -> None:
    assert said_to(service, post(b"content-length: 100", body=b"{")).startswith(b"HTTP/1.1 408")
    assert said_to(service, post(b"content-length: 10001")).startswith(b"HTTP/1.1 413")
    chunk = b"1000\r\n" + b" " * 0x1000 + b"\r\n"
    assert said_to(service, post(b"transfer-encoding: chunked"), chunk, chunk, chunk).startswith(b"HTTP/1.1 413")


def test_bodies_under_way_are_bounded_in_sum_and_free_what_they_held(service: httpx.URL) -> None:
    for _ in range(3):
        held = post(b"content-length: 9000", body=b" " * 8999)
        with socket.create_connection((service.host, service.port)) as first:
            first.sendall(held)
            time.sleep(0.1)
            answer = said_to(service, held)
            assert answer.startswith(b"HTTP/1.1 429")
            assert b"retry-after" in answer
    assert httpx.post(service.join("/by-us"), json={"number": 3}).json() == 3


@pytest.mark.parametrize("path", ["/by-us", "/by-fastapi"])
@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"{", "not JSON"), (b'{"number": NaN}', "not JSON"), (b'{"number": "\\ud800"}', "not JSON"), (b"{}", "number")],
)
def test_both_ways_of_reading_a_body_refuse_alike(service: httpx.URL, path: str, content: bytes, reason: str) -> None:
    answer = httpx.post(service.join(path), content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert reason in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/by-us", "/by-fastapi"])
def test_reply_to_a_long_fault_is_short(service: httpx.URL, path: str) -> None:
    answer = httpx.post(service.join(path), json={"number": "x" * 9000})
    assert answer.status_code == 400
    assert len(answer.content) < 1000


STRICT = [
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5000,
    '"\\ud83d"',
    "[" * 300 + "]" * 300,
    "1" + "0" * 400 + ".5",
    "{,}",
    "",
]


@pytest.mark.parametrize("text", STRICT)
def test_json_is_taken_strictly(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        parse_json(text.encode())


@pytest.mark.parametrize("value", [{"a": [1, 2.5, "é\n😀", None, True, {}]}, 10**30, 1e300, "1e999", [[[]]]])
def test_other_json_is_what_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_marks_inside_texts_are_not_counted() -> None:
    text = json.dumps({"content": ', : [ { \\" ' * 10_000}).encode()
    assert num_tokens(text, enough=100) == 4
    assert num_tokens(json.dumps([{}] * 5000).encode(), enough=100_000) == 1 + 5000 + 4999
    assert num_tokens(json.dumps([{}] * 5000).encode(), enough=2000) > 2000


@pytest.mark.parametrize("unit", [b'"', b"\\", b'"\\', b'\\"', b'[{"', b'"\\\\'])
def test_what_is_not_json_is_counted_in_linear_time(unit: bytes) -> None:
    """The test's time limit is the check: an expression that began again at each quote took minutes for 4 MiB."""
    num_tokens(unit * (4 << 20), enough=100_000)


def test_strings_and_marks_are_counted_as_a_parser_would() -> None:
    def count(value: Any) -> int:
        match value:
            case str():
                return 1
            case list():
                return 1 + max(len(value) - 1, 0) + sum(map(count, value))
            case dict():
                return (
                    1 + max(len(value) - 1, 0) + len(value) + sum(count(key) + count(of) for key, of in value.items())
                )
            case _:
                return 0

    texts = st.text(alphabet='ab"\\,:[{\né', max_size=8)
    values = st.recursive(
        st.none() | st.integers() | texts,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    )

    @given(value=values)
    def as_counted(value: Any) -> None:
        many = [[value] * 50, [0] * 1001]  # more than 1,000 marks: below that the count may be too high
        assert num_tokens(json.dumps(many).encode(), enough=1 << 30) == count(many)

    as_counted()


def test_what_is_told_or_logged_is_one_short_line() -> None:
    assert printable("a\nb\x1b[2J\ud800") == r"a\nb\x1b[2J\ud800"
    assert printable("x" * 600) == "x" * 500 + "…"
