"""A router under a flood: `python -m benchmarks flood [--rate 500] [--seconds 60]`.

A real router process in front of a stub pool, on a lake on disk. First the attacks that once killed one: bodies of a
hundred thousand keys or two million numbers, unfinished bodies, heads without end. Then chats and votes at a fixed
rate, one in five of them hostile. It prints the statuses, and the router's peak memory beside the chart's limit.
"""

import argparse
import asyncio
import json
import random
import re
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import yaml

from benchmarks.router import STUB, running
from ratchet.http_service import free_ports
from ratchet.router.tokens import Signer, Ticket

CHART = Path("charts/adapter-router/values.yaml")
SECRET, KEY = "s" * 32, "k" * 16
SIGNER = Signer([SECRET])
CHAT, VOTE = "/v1/chat/completions", "/v1/feedback"
NUM_CONNECTIONS = 64
HOSTILE_SHARE = 0.2
PATIENCE_S = 30.0
MESSAGES = [{"role": "user", "content": "Why is the sky blue?"}]
LEAVES = (
    b'"\\ud83d"', b'"\\udc00"', b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b'"\xff"', b"null", b"[]", b"{}", b"-1",
    b"[" * 500 + b"]" * 500, b'{"a":' * 250 + b"1" + b"}" * 250, b'[{"role":"wizard","content":"x"}]',
)  # fmt: skip
KEYS = (b"model", b"messages", b"stream", b"n", b"user", b"metadata", b"seed", b"kind", b"value", b"is_tie", b"other")


@dataclass(frozen=True)
class Router:
    """A router process under test."""

    port: int
    process: psutil.Process

    @property
    def peak_mib(self) -> float:
        """The largest resident memory so far."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1024


def limit_mib() -> float:
    """The memory that the chart lets a router take."""
    limit: str = yaml.safe_load(CHART.read_text())["resources"]["limits"]["memory"]
    return float(limit.removesuffix("Mi"))


@contextmanager
def router() -> Iterator[Router]:
    """A router with one tenant's key, its stub of a pool, and a lake that is deleted at the end."""
    stub, port = free_ports(2)
    pool = f"http://127.0.0.1:{stub}"
    with TemporaryDirectory() as lake, running([sys.executable, "-m", STUB, str(stub)], f"{pool}/v1/models"):
        environment = {
            "RATCHET_POOL_URL": pool,
            "RATCHET_LAKE": lake,
            "RATCHET_PORT": str(port),
            "RATCHET_SECRET": SECRET,
            "RATCHET_API_KEYS": f"acme={KEY}",
        }
        command = [sys.executable, "-m", "ratchet.router.app"]
        with running(command, f"http://127.0.0.1:{port}/readyz", **environment) as process:
            yield Router(port, process)


async def many_keys(router: Router) -> None:
    """3.6 MiB of 380,000 unknown keys as a vote, without a token and with one."""
    body = b"{" + b",".join(b'"k%d":1' % number for number in range(380_000)) + b"}"
    for credentials in ("", token(0)):
        await ask_once(router, VOTE, body, credentials)


async def many_numbers(router: Router) -> None:
    """4 MiB of two million numbers as messages, with a tenant's key; many smaller bodies of values at once."""
    numbers = b",".join([b"1"] * 2_000_000)
    await ask_once(router, CHAT, b'{"model":"assistant","messages":[' + numbers + b"]}", KEY)
    smaller = b'{"model":"assistant","messages":[],"x":[' + b",".join([b"{}"] * 24_000) + b"]}"
    await asyncio.gather(*(ask_once(router, CHAT, smaller, KEY) for _ in range(200)))


async def unfinished_bodies(router: Router) -> None:
    """60 posts of 4 MiB without their last byte, first without and then with a tenant's key."""
    for credentials in ("", KEY):
        async with opened(router, 60) as writers:
            for writer in writers:
                with suppress(ConnectionError):
                    writer.write(head(CHAT, 4 << 20, credentials) + b" " * ((4 << 20) - 1))
            await asyncio.sleep(3)


async def endless_head(router: Router) -> None:
    """256 MiB of headers on one connection, and of one header on another."""
    for part in (b"x-filler: " + b"a" * 1000 + b"\r\n", b"a" * 1000):
        async with opened(router, 1) as [writer]:
            writer.write(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: x\r\nx-long: ")
            with suppress(ConnectionError):
                for _ in range(256 << 10):
                    writer.write(part)
                    await writer.drain()


async def idle_connections(router: Router) -> None:
    """800 connections that begin a head and say no more: some machines let a process have 1,024 files."""
    async with opened(router, 800) as writers:
        for writer in writers:
            writer.write(b"POST " + CHAT.encode() + b" HTTP/1.1\r\nhost: x\r\nx-slow: " + b"a" * 8000)
        await asyncio.sleep(3)


Attack = Callable[[Router], Awaitable[None]]
ATTACKS: dict[str, Attack] = {
    attack.__name__: attack for attack in (many_keys, many_numbers, unfinished_bodies, endless_head, idle_connections)
}


async def slowest_probe(router: Router, attack: Attack) -> float:
    """Attack, and return the longest time in seconds that /healthz took meanwhile."""
    waits: list[float] = []
    is_over = asyncio.Event()

    async def probe() -> None:
        while not is_over.is_set():
            started = time.monotonic()
            reader, writer = await asyncio.open_connection("127.0.0.1", router.port)
            writer.write(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")
            writer.close()
            await writer.wait_closed()
            waits.append(time.monotonic() - started)
            await asyncio.sleep(0.05)

    probing = asyncio.create_task(probe())
    await attack(router)
    await asyncio.sleep(0.2)
    is_over.set()
    await probing
    return max(waits)


async def flood(router: Router, rate: float, seconds: float) -> tuple[Counter[int], float]:
    """Send requests at `rate` a second; return their statuses, 0 where none came, and the rate reached."""
    statuses: Counter[int] = Counter()
    turns = iter(range(int(rate * seconds)))
    started = time.monotonic()

    async def client() -> None:
        connection = Connection(router)
        for number in turns:
            await asyncio.sleep(max(0.0, started + number / rate - time.monotonic()))
            rng = random.Random(number)
            path = CHAT if rng.random() < 0.7 else VOTE
            body, credentials = usual(path), KEY if path == CHAT else token(number)
            if rng.random() < HOSTILE_SHARE:
                body, credentials = hostile(rng, body), rng.choice((credentials, credentials, ""))
            statuses[await connection.ask(path, body, credentials)] += 1
        await connection.close()

    await asyncio.gather(*(client() for _ in range(NUM_CONNECTIONS)))
    return statuses, statuses.total() / (time.monotonic() - started)


def usual(path: str) -> bytes:
    body = {"model": "assistant", "messages": MESSAGES} if path == CHAT else {"kind": "thumb", "value": 1}
    return json.dumps(body).encode()


def hostile(rng: random.Random, body: bytes) -> bytes:
    """Return a body with some bytes, fields or most of its length changed; one in 200 is megabytes long."""
    kind = rng.random()
    if kind < 0.005:
        leaf = rng.choice((b"1", b"{}", b'""', b"[]", b'{"role":"user"}'))
        filler = b",".join([leaf] * (rng.randrange(1 << 20, 4 << 20) // (len(leaf) + 1)))
        return body[:-1] + b"," + field(rng, b"[" + filler + b"]") + b"}"
    if kind < 0.2:
        return body[: rng.randrange(len(body))]
    if kind < 0.4:
        place = rng.randrange(len(body))
        return body[:place] + rng.randbytes(rng.randrange(1, 5)) + body[place + 1 :]
    fields = b",".join(field(rng, rng.choice(LEAVES)) for _ in range(rng.randrange(1, 4)))
    return body[:-1] + b"," + fields + b"}"


def field(rng: random.Random, value: bytes) -> bytes:
    return b'"' + rng.choice(KEYS) + b'":' + value


def token(number: int) -> str:
    ticket = Ticket(
        interaction_id=f"i{number}", subject_id=f"acme/u{number}", tenant="acme", adapter_digest="base", arm="primary"
    )
    return SIGNER.sign(ticket)


def head(path: str, length: int, credentials: str) -> bytes:
    bearer = f"authorization: Bearer {credentials}\r\n" if credentials else ""
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{bearer}content-length: {length}\r\n\r\n".encode()


class Connection:
    """A client's connection, opened again after the router has closed it."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, path: str, body: bytes, credentials: str) -> int:
        """Post a body; return the answer's status, 0 if the connection ended without one."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._router.port)
                reader, writer = self._streams
                with suppress(ConnectionError):  # an early answer is still there to be read
                    writer.write(head(path, len(body), credentials) + body)
                    await writer.drain()
                return await self._answer(reader)
        except (ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            await self.close()
            return 0

    async def _answer(self, reader: asyncio.StreamReader) -> int:
        answered = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(answered.partition(b"content-length:")[2].partition(b"\r\n")[0]))
        if b"connection: close" in answered:
            await self.close()
        return int(answered.split(b" ", 2)[1])

    async def close(self) -> None:
        if self._streams:
            _, writer = self._streams
            self._streams = None
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def ask_once(router: Router, path: str, body: bytes, credentials: str) -> int:
    """Post a body on a connection of its own; return the answer's status, 0 without one."""
    connection = Connection(router)
    try:
        return await connection.ask(path, body, credentials)
    finally:
        await connection.close()


@asynccontextmanager
async def opened(router: Router, how_many: int) -> AsyncIterator[list[asyncio.StreamWriter]]:
    """Connections of which nothing is read, aborted at the end."""
    streams = [await asyncio.open_connection("127.0.0.1", router.port) for _ in range(how_many)]
    try:
        yield [writer for _, writer in streams]
    finally:
        for _, writer in streams:
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()


async def attack_all(router: Router) -> None:
    for name, attack in ATTACKS.items():
        waited_s = await slowest_probe(router, attack)
        print(f"  {name:<18} /healthz within {waited_s:.2f} s, peak {router.peak_mib:.0f} MiB", flush=True)


def main(arguments: list[str]) -> None:
    """Attack a router, then flood it; print statuses, rate and peak memory."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks flood", description=__doc__.partition("\n")[0])
    parser.add_argument("--rate", type=float, default=500, help="requests a second")
    parser.add_argument("--seconds", type=float, default=60)
    asked = parser.parse_args(arguments)
    with router() as target:
        print(f"limit {limit_mib():.0f} MiB, {target.peak_mib:.0f} MiB at the start")
        asyncio.run(attack_all(target))
        before = sum(target.process.cpu_times()[:2])
        statuses, reached = asyncio.run(flood(target, asked.rate, asked.seconds))
        cpu_s = sum(target.process.cpu_times()[:2]) - before
        failed = sum(count for status, count in statuses.items() if status >= 500)
        print(f"  {reached:.0f} requests a second of {asked.rate:.0f} wanted, {HOSTILE_SHARE:.0%} hostile")
        print(f"  statuses {dict(sorted(statuses.items()))}; 5xx: {failed}")
        print(f"  {statuses.total() / cpu_s:.0f} requests a core-second, peak {target.peak_mib:.0f} MiB")
