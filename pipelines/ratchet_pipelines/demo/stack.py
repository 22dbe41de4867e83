"""What the demo releases to: model server, gate, and a cluster in miniature, as processes on loopback."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import yaml

from ratchet.config import Config
from ratchet.errors import UserError

CHART = Path(__file__).parents[3] / "charts" / "adapter-router"
VALUES_PATH = "environments/local/values.yaml"
START_TIMEOUT_S = 180
CLOCK_SPEED = 30  # a canary interval of one minute takes two seconds


@dataclass(frozen=True)
class Stack:
    """Where everything listens."""

    pool_url: str
    api_url: str
    gateway_url: str
    gate_url: str
    git_url: str


@contextmanager
def running(lake: Path, config: Config, seed: int) -> Iterator[Stack]:
    """Start every service, yield their addresses, stop them all whatever happens."""
    ports = _free_ports(4)
    pool, api, gateway, gate = (f"http://127.0.0.1:{port}" for port in ports)
    stack = Stack(pool, api, gateway, gate, str(lake / "git" / "deploy.git"))
    settings = lake / "ratchet.yaml"
    settings.write_text(yaml.safe_dump(released_to(config, stack).model_dump(mode="json")), encoding="utf-8")
    _create_repository(Path(stack.git_url), stack, lake)
    with ExitStack() as processes:
        start = lambda name, module, *args: processes.enter_context(_process(lake, name, module, *map(str, args)))  # noqa: E731
        model = start("model-server", "ratchet.serving.model_server", "--config", settings, "--port", ports[0])
        judge = start("gate", "ratchet.release.gate", "--config", settings, "--lake", lake, "--port", ports[3])
        _wait_until_ok(f"{pool}/health", model)
        cluster = start(
            "cluster", "ratchet.rehearsal", "--git-url", stack.git_url, "--branch", "main",
            "--values-path", VALUES_PATH, "--chart", CHART, "--pool-url", pool, "--gate-url", gate, "--lake", lake,
            "--api-port", ports[1], "--gateway-port", ports[2], "--speed", CLOCK_SPEED, "--namespace",
            config.release_adapter.namespace, "--seed", seed,
        )  # fmt: skip
        _wait_until_ok(f"{gate}/healthz", judge)
        _wait_until_ok(f"{gateway}/readyz", cluster)
        yield stack


def released_to(config: Config, stack: Stack, *, force: bool = False) -> Config:
    """The configuration with the addresses of this stack."""
    release = config.release_adapter.model_copy(
        update={
            "git_url": stack.git_url,
            "values_path": VALUES_PATH,
            "cluster_url": stack.api_url,
            "gate_url": stack.gate_url,
            "force": force,
        }
    )
    return config.model_copy(update={"release_adapter": release})


@dataclass(frozen=True)
class _Process:
    name: str
    log: Path
    process: subprocess.Popen[bytes]


@contextmanager
def _process(lake: Path, name: str, module: str, *args: str) -> Iterator[_Process]:
    log = lake / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, "-m", module, *args], stdout=file, stderr=file, env=environment)
    try:
        yield _Process(name, log, process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ok(url: str, service: _Process) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            break
        try:
            if httpx.get(url, timeout=2).status_code == httpx.codes.OK:
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    tail = "\n".join(service.log.read_text(errors="replace").splitlines()[-15:])
    raise UserError(f"{service.name} did not answer at {url}; the end of {service.log}:\n{tail}")


def _create_repository(bare: Path, stack: Stack, lake: Path) -> None:
    """The repository that Argo CD follows: one values file an environment."""
    work = bare.parent / "first"
    git = shutil.which("git")
    if git is None:
        raise UserError("git is not installed; the release goes through a Git repository")
    values = work / VALUES_PATH
    values.parent.mkdir(parents=True)
    values.write_text(_first_values(stack, lake), encoding="utf-8")
    who = ["-c", "user.name=ratchet", "-c", "user.email=ratchet@localhost"]
    for command in (
        ["init", "--quiet", "--bare", "--initial-branch=main", str(bare)],
        ["init", "--quiet", "--initial-branch=main", str(work)],
        ["-C", str(work), "add", "."],
        ["-C", str(work), *who, "commit", "--quiet", "-m", "Serve the base model"],
        ["-C", str(work), "push", "--quiet", str(bare), "main"],
    ):
        subprocess.run([git, *command], check=True, capture_output=True)
    shutil.rmtree(work)


def _first_values(stack: Stack, lake: Path) -> str:
    where = {"poolUrl": stack.pool_url, "lake": str(lake), "gate": {"url": stack.gate_url}}
    return (
        "# The adapter in production. Ratchet's release step and reconciler write this block, nobody else.\n"
        'adapter:\n  name: base\n  version: "0"\n  uri: ""\n  digest: base\n' + yaml.safe_dump(where)
    )


def _free_ports(count: int) -> list[int]:
    with ExitStack() as sockets:
        bound = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in bound]
