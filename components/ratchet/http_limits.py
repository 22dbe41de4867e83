"""Bound what one client can make a service hold or do, before anything that it sent is parsed.

`BoundedProtocol` bounds connections, heads and the time that they take, `BoundedRequests` bodies, one by one and in
sum. The tokens in a body count too (`num_tokens`): as Python objects they take up to 25 times the room.
"""

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi.exceptions import HTTPException
from pydantic_core import from_json
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_CONNECTIONS = 2048
MAX_HEAD_BYTES = 32 << 10
MAX_HEADERS = 100
HEAD_S = 10.0  # from a connection, or the first byte of a request, to the end of its head
CLIENT_LEFT = 499  # nginx's status of a request whose client went away; nobody receives it
TOKEN_BYTES = 100  # of memory by token of a parsed body, its share of dicts and models included
HOLD = "ratchet.hold"  # the scope's key of the function by which a request counts more memory
LARGE_NUMBER = re.compile(rb"[0-9]{200}|[0-9][eE]\+?[0-9]{3}")  # no number without these overflows
MARKS = (b'"', b",", b":", b"[", b"{")
STATUS_431 = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class RequestRefused(HTTPException):
    """A request that gets an error status and a message for its sender, who may come back after `retry_after_s`."""

    def __init__(
        self,
        status: int,
        message: str,
        retry_after_s: float | None = None,
        *,
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(status, message)
        self.status, self.message, self.retry_after_s = status, message, retry_after_s
        self.param, self.code = param, code

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a service takes from its clients."""

    body_bytes: int = 64 << 10
    """Of one request."""
    held_bytes: int = 32 << 20
    """Of the bodies of all requests under way: more are refused with 429."""
    body_s: float = 30.0
    """From the first read to the last byte of a body."""


class BoundedRequests:
    """ASGI middleware: refuses bodies beyond the limits, and tells `app` of a client that left its body unfinished.

    A request whose body was not read to its end is answered with `connection: close`. `hold` lets `app` count more
    bytes for a request, as for the objects that its body is parsed to.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self._app, self._limits, self._held_bytes = app, limits, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        held_bytes = 0

        def hold(num_bytes: int) -> None:
            nonlocal held_bytes
            held_bytes += num_bytes
            self._held_bytes += num_bytes
            if self._held_bytes > self._limits.held_bytes:
                raise RequestRefused(429, "too many large requests are under way here", retry_after_s=2)

        body = _Body(receive, self._limits, _declared_bytes(scope), hold)

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start" and not body.is_complete:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
            await send(message)

        try:
            await self._app({**scope, HOLD: hold}, body.read, answer)
        finally:
            self._held_bytes -= held_bytes


class _Body:
    """One request's body on its way in. Raises RequestRefused: 413 too large, 408 too slow, 499 its client left."""

    def __init__(
        self, receive: Receive, limits: Limits, declared_bytes: int | None, hold: Callable[[int], None]
    ) -> None:
        self._receive, self._limits, self._hold = receive, limits, hold
        self._declared_bytes, self._deadline, self._size = declared_bytes, 0.0, 0
        self.is_complete = declared_bytes == 0

    async def read(self) -> Message:
        if self.is_complete:
            return await self._receive()
        self._check(self._declared_bytes or 0)
        self._deadline = self._deadline or asyncio.get_running_loop().time() + self._limits.body_s
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise RequestRefused(408, f"the body took longer than {self._limits.body_s:g} s") from None
        if message["type"] == "http.disconnect":
            raise RequestRefused(CLIENT_LEFT, "the client left before its body was complete")
        part = message.get("body", b"")
        self._size += len(part)
        self._check(self._size)
        self._hold(len(part))
        self.is_complete = not message.get("more_body", False)
        return message

    def _check(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise RequestRefused(413, f"the body is larger than {self._limits.body_bytes} bytes")


def _declared_bytes(scope: Scope) -> int | None:
    """Return the length that the head declares: 0 without a body, None where only its end will tell."""
    headers = dict(scope["headers"])
    if b"transfer-encoding" in headers:
        return None
    return int(headers.get(b"content-length", b"0"))  # uvicorn has refused what is no number


class BoundedProtocol(HttpToolsProtocol):
    """Uvicorn's HTTP protocol, with bounds on connections, on a head's size and on the time until it is complete."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._bytes_since_progress = 0
        self._late: asyncio.TimerHandle | None = None
        self._await_head()
        if len(self.connections) > MAX_CONNECTIONS:
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self._await_head()
        self._bytes_since_progress += len(data)
        super().data_received(data)
        if self._bytes_since_progress > MAX_HEAD_BYTES:
            self._refuse()

    def on_headers_complete(self) -> None:
        self._stop_waiting()
        self._bytes_since_progress = 0
        size = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if size > MAX_HEAD_BYTES or len(self.headers) > MAX_HEADERS:
            self._refuse()
        else:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._bytes_since_progress = 0
        if self.cycle is not None:  # None: the head was refused
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._bytes_since_progress = 0
        if self.cycle is not None:
            super().on_message_complete()

    def _refuse(self) -> None:
        if not self.transport.is_closing():
            if self.cycle is None or self.cycle.response_complete:
                self.transport.write(STATUS_431)
            self.transport.close()

    def _await_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def parse_json(body: bytes) -> Any:
    """Parse strict JSON. Raises JSONDecodeError, also for what Python would take and others cannot.

    That is: NaN, Infinity and 1e999, half of a surrogate pair, nesting beyond 200, numbers of thousands of digits.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
        if LARGE_NUMBER.search(body):
            json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise json.JSONDecodeError(str(error), "", 0) from None
    return value


def num_tokens(body: bytes, enough: int) -> int:
    """Return how many strings and marks a JSON text holds, exactly from 1,000 on; it stops counting above `enough`."""
    at_most = sum(map(body.count, MARKS))
    if at_most <= 1000:
        return at_most
    unescaped = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    num_strings = (unescaped.count(b'"') + 1) // 2
    if num_strings > enough:  # splitting would make as many objects as the bound is there to prevent
        return num_strings
    outside = b"".join(unescaped.split(b'"')[::2])
    return num_strings + sum(map(outside.count, MARKS[1:]))
