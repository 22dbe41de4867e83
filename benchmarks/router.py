"""The router against LiteLLM's proxy on the same stub of a model pool: requests per core-second, added latency.

The router has every answer on disk before it passes it on; the proxy stores nothing. LiteLLM gets an environment of its
own in .venv-litellm: its pins are not ours. `python -m benchmarks router` prints the latencies too, and how much later
than the stub's a stream's first event comes; `python -m benchmarks router CHECKOUT=MODULE` sets the router of another
checkout beside them, by the name of its module there.
"""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import psutil

# Older than 1.107.0, which was withdrawn as malicious.
LITELLM = "litellm[proxy]==1.102.4"
PEER = Path(".venv-litellm")
RATE = 25  # requests a second while latency is measured: far from what either can take
NUM_PACED, NUM_FLAT_OUT, NUM_WARM = 250, 600, 50
NUM_CONNECTIONS = 16
CLOCK_S = 0.01  # what the system counts processor time in
START_TIMEOUT_S = 120
STUB, ROUTER = "benchmarks.stub_pool", "ratchet.router.app"


@dataclass(frozen=True)
class Arm:
    """A server under test and its process; the stub itself is the floor."""

    name: str
    port: int
    model: str
    process: psutil.Process


@dataclass(frozen=True, kw_only=True)
class Result:
    p50_ms: float
    p99_ms: float
    first_event_ms: float
    """From a request to the first event of its stream, the median."""
    per_core_s: float
    """Requests for each second of processor time."""


def run() -> dict[str, float]:
    """Requests a second of one core, by arm."""
    return {name: result.per_core_s for name, result in measure().items() if name != "stub alone"}


def main(checkouts: list[str]) -> None:
    """Print latencies, and what each arm adds to the stub's."""
    print(f"{LITELLM}; {NUM_PACED} requests at {RATE} a second, then {NUM_FLAT_OUT} on {NUM_CONNECTIONS} connections")
    results = measure(checkouts)
    floor = results["stub alone"]
    for name, one in results.items():
        added = f"adds {one.p50_ms - floor.p50_ms:6.2f} ms at p50, {one.p99_ms - floor.p99_ms:6.2f} ms at p99"
        first = f"first event of a stream {one.first_event_ms - floor.first_event_ms:+6.2f} ms"
        print(
            f"  {name:<12} p50 {one.p50_ms:6.2f} ms  p99 {one.p99_ms:6.2f} ms  {added}  {first}  "
            f"{one.per_core_s:7.0f} a core-s"
        )


def measure(checkouts: Sequence[str] = ()) -> dict[str, Result]:
    """Every arm, paced turn by turn so that a busy moment of the machine hits all alike, then each flat out."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        arms = list(_started(stack, folder, checkouts))
        for arm in arms:
            asyncio.run(_flat_out(arm, NUM_WARM))
        paced = asyncio.run(_paced(arms))
        streamed = asyncio.run(_paced(arms, stream=True))
        return {arm.name: _result(arm, sorted(paced[arm.name]), sorted(streamed[arm.name])) for arm in arms}


def _result(arm: Arm, waits_s: list[float], firsts_s: list[float]) -> Result:
    before = _cpu_s(arm.process)
    asyncio.run(_flat_out(arm, NUM_FLAT_OUT))
    return Result(
        p50_ms=1000 * waits_s[len(waits_s) // 2],
        p99_ms=1000 * waits_s[len(waits_s) * 99 // 100],
        first_event_ms=1000 * firsts_s[len(firsts_s) // 2],
        per_core_s=NUM_FLAT_OUT / max(_cpu_s(arm.process) - before, CLOCK_S),
    )


async def _paced(arms: list[Arm], *, stream: bool = False) -> dict[str, list[float]]:
    """Seconds that each request took, or a stream's first event; arms take turns, one request under way at a time."""
    waits: dict[str, list[float]] = {arm.name: [] for arm in arms}
    streams = {arm.name: await asyncio.open_connection("127.0.0.1", arm.port) for arm in arms}
    for _ in range(NUM_PACED):
        for arm in arms:
            await asyncio.sleep(1 / RATE)
            waits[arm.name].append(await _ask(arm, *streams[arm.name], stream=stream))
    for _, writer in streams.values():
        writer.close()
    return waits


async def _flat_out(arm: Arm, num_requests: int) -> None:
    turns = iter(range(num_requests))

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", arm.port)
        for _ in turns:
            await _ask(arm, reader, writer)
        writer.close()

    await asyncio.gather(*(client() for _ in range(NUM_CONNECTIONS)))


async def _ask(arm: Arm, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stream: bool = False) -> float:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    content = json.dumps({"model": arm.model, "messages": messages, **({"stream": True} if stream else {})}).encode()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"authorization: Bearer none\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    started = time.perf_counter()
    writer.write(head.encode() + content)
    answered = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert answered.startswith(b"http/1.1 200"), answered
    if stream:
        await reader.readuntil(b"word0")
        first_s = time.perf_counter() - started
        await reader.readuntil(b"\r\n0\r\n\r\n")
        return first_s
    await reader.readexactly(int(answered.partition(b"content-length:")[2].partition(b"\r\n")[0]))
    return time.perf_counter() - started


def _started(stack: ExitStack, folder: Path, checkouts: Sequence[str]) -> Iterator[Arm]:
    stub, ours, theirs = 8181, 8182, 8183
    pool = f"http://127.0.0.1:{stub}"
    process = stack.enter_context(running([sys.executable, "-m", STUB, str(stub)], f"{pool}/v1/models"))
    floor = Arm("stub alone", stub, "base-model", process)
    for place, given in enumerate((f"={ROUTER}", *checkouts)):
        checkout, _, module = given.partition("=")
        port = ours + 10 * place
        environment = {
            "RATCHET_POOL_URL": pool,
            "RATCHET_LAKE": str(folder / f"lake-{place}"),
            "RATCHET_PORT": str(port),
            "RATCHET_SECRET": "s" * 32,
            **({"PYTHONPATH": str(Path(checkout, "components").resolve())} if checkout else {}),
        }
        command = [sys.executable, "-m", module or ROUTER]
        process = stack.enter_context(running(command, f"http://127.0.0.1:{port}/readyz", **environment))
        yield Arm(checkout or "ours", port, "assistant", process)
    config = folder / "litellm.json"
    parameters = {"model": "openai/base-model", "api_base": f"{pool}/v1", "api_key": "none"}
    settings = {"model_list": [{"model_name": "assistant", "litellm_params": parameters}]}
    config.write_text(json.dumps({**settings, "litellm_settings": {"telemetry": False}}))
    command = [str(_peer()), "--config", str(config), "--host", "127.0.0.1", "--port", str(theirs)]
    environment = {"LITELLM_LOG": "ERROR", "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    process = stack.enter_context(running(command, f"http://127.0.0.1:{theirs}/health/liveliness", **environment))
    yield Arm("LiteLLM", theirs, "assistant", process)
    yield floor


def _peer() -> Path:
    """LiteLLM's command, installed where it is not yet."""
    command = PEER / "bin" / "litellm"
    if not command.exists():
        uv = shutil.which("uv") or str(Path(sys.executable).with_name("uv"))
        subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(PEER)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(PEER / "bin" / "python"), LITELLM], check=True)
    return command


@contextmanager
def running(command: list[str], probe: str, **environment: str) -> Iterator[psutil.Process]:
    process = subprocess.Popen(
        command, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            assert process.poll() is None and time.monotonic() < deadline, f"{command[0]} does not answer at {probe}"
            try:
                urlopen(probe, timeout=5).close()
                break
            except OSError:
                time.sleep(0.2)
        yield psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait()


def _cpu_s(process: psutil.Process) -> float:
    """Processor time of a process and those that it started, in seconds."""
    return sum(sum(one.cpu_times()[:2]) for one in (process, *process.children(recursive=True)))
