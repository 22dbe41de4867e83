"""A proxy before an S3 server that fails every so many-th call, before or after it was carried out."""

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
BUSY = b"HTTP/1.1 503 Slow Down\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class FaultyProxy:
    """Serves one HTTP/1.1 request a connection. Failed calls are counted by how: busy, cut, or lost (done, unsaid)."""

    def __init__(self, upstream: str, every: int) -> None:
        place = urlsplit(upstream)
        self._upstream = place.hostname, place.port
        ways = (("none",) * (every - 1) + (way,) for way in ("busy", "cut", "lost"))
        self._faults = itertools.cycle(itertools.chain.from_iterable(ways))
        self.calls: Counter[str] = Counter()

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _message(reader, writer)
            fault = next(self._faults)
            self.calls[fault] += 1
            if fault == "busy":
                writer.write(BUSY)
            elif fault != "cut":
                answer = await self._forward(request)
                writer.write(answer if fault == "none" else b"")
            await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # a connection that was opened and never used
        finally:
            writer.close()

    async def _forward(self, request: bytes) -> bytes:
        reader, writer = await asyncio.open_connection(*self._upstream)
        head, _, body = request.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith((b"connection:", b"expect:"))]
        writer.write(b"\r\n".join([*lines, b"connection: close", b"", b""]) + body)
        await writer.drain()
        answer = await reader.read(-1)
        writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join([*lines, b"connection: close", b"", b""]) + body


async def _message(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b":", 1) for line in head.split(b"\r\n")[1:] if b":" in line)
    if b"expect" in fields:  # without this, S3's clients wait for a second before they send what they have
        writer.write(CONTINUE)
    return head + await reader.readexactly(int(fields.get(b"content-length", b"0")))


@contextmanager
def failing(upstream: str, every: int) -> Iterator[tuple[str, FaultyProxy]]:
    """The proxy's address, for as long as the block runs, and the proxy."""
    proxy, loop, is_up = FaultyProxy(upstream, every), asyncio.new_event_loop(), threading.Event()

    async def serve() -> None:
        nonlocal port
        server = await asyncio.start_server(proxy.handle, "127.0.0.1", 0, backlog=1024)
        port = server.sockets[0].getsockname()[1]
        is_up.set()
        async with server:
            await stop.wait()

    port, stop = 0, asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    is_up.wait()
    try:
        yield f"http://127.0.0.1:{port}", proxy
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
        loop.close()
