"""Run what the demo releases to, as processes on loopback: model server, gate, and the rehearsal cluster."""

import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import yaml

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.http_service import free_ports
from ratchet.rehearsal import child_process
from ratchet.release.gate.tokens import VARIABLE

# In the checkout, `charts` in this package is a link to the folder at the top; the wheel carries the files themselves.
CHART = Path(str(files("ratchet_pipelines"))) / "charts" / "adapter-router"
VALUES_PATH = "environments/local/values.yaml"
FIRST_VALUES = """\
# The adapter in production. Only the release step and the reconciler write this block.
adapter:
  name: base
  version: "0"
  uri: ""
  digest: base
"""
START_TIMEOUT_S = 180
GRACE_S = 15
CLOCK_SPEED = 30  # a look of Flagger every 30 s becomes one every second
REFRESH_S = 0.25  # of the gate
CLI = "ratchet_pipelines.cli"


@dataclass(frozen=True)
class Stack:
    """The addresses of the services and of the Git repository."""

    pool_url: str
    api_url: str
    gateway_url: str
    gate_url: str
    git_url: str


@contextmanager
def running(lake: Path, config: Config, seed: int) -> Iterator[Stack]:
    """Start every service, yield their addresses, and stop them all at the end, also after an error."""
    ports = free_ports(4)
    pool, api, gateway, gate = (f"http://127.0.0.1:{port}" for port in ports)
    stack = Stack(pool, api, gateway, gate, str(lake / "git" / "deploy.git"))
    settings = lake / "ratchet.yaml"
    settings.write_text(yaml.safe_dump(released_to(config, stack).model_dump(mode="json")), encoding="utf-8")
    create_repository(Path(stack.git_url))
    os.environ.setdefault(VARIABLE, secrets.token_hex(24))  # every service inherits our environment
    with ExitStack() as processes:

        def start(name: str, module: str, *args: object) -> Service:
            return processes.enter_context(_process(lake, name, module, *map(str, args)))

        model = start("model-server", CLI, "serve-model", "--config", settings, "--port", ports[0])
        judge = start("gate", CLI, "serve-gate", "--config", settings, "--lake", lake, "--port", ports[3])
        cluster = start(
            "cluster",
            "ratchet.rehearsal",
            "--git-url",
            stack.git_url,
            "--branch",
            "main",
            "--values-path",
            VALUES_PATH,
            "--chart",
            CHART,
            "--pool-url",
            pool,
            "--gate-url",
            gate,
            "--lake",
            lake,
            "--api-port",
            ports[1],
            "--gateway-port",
            ports[2],
            "--speed",
            CLOCK_SPEED,
            "--namespace",
            config.release_adapter.namespace,
            "--seed",
            seed,
        )
        wait_until_ok(f"{pool}/health", model)
        wait_until_ok(f"{gate}/healthz", judge)
        wait_until_ok(canary_url(config, api), cluster, lambda canary: canary["status"]["phase"] == "Initialized")
        yield stack


def released_to(config: Config, stack: Stack, *, force: bool = False) -> Config:
    """Return the configuration with the addresses of this stack, and a gate that looks often enough for its ticks."""
    release = config.release_adapter.model_copy(
        update={
            "git_url": stack.git_url,
            "values_path": VALUES_PATH,
            "cluster_url": stack.api_url,
            "gate_url": stack.gate_url,
            "force": force,
        }
    )
    gate = config.gate.model_copy(update={"refresh_s": min(REFRESH_S, config.gate.refresh_s)})
    return config.model_copy(update={"release_adapter": release, "gate": gate})


@dataclass(frozen=True)
class Service:
    name: str
    log: Path
    process: subprocess.Popen[bytes]


@contextmanager
def _process(lake: Path, name: str, module: str, *args: str) -> Iterator[Service]:
    log = lake / "logs" / f"{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {"OMP_NUM_THREADS": str(os.cpu_count()), **os.environ, "PYTHONUNBUFFERED": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("wb") as file:
        process = child_process.start(module, *args, output=file, env=environment)
    try:
        yield Service(name, log, process)
    finally:
        process.terminate()
        child_process.wait_or_kill(process, GRACE_S)


def canary_url(config: Config, api_url: str) -> str:
    release = config.release_adapter
    return f"{api_url}/apis/flagger.app/v1beta1/namespaces/{release.namespace}/canaries/{release.canary}"


def wait_until_ok(url: str, service: Service, is_ready: Callable[[Any], bool] = bool) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if service.process.poll() is not None:
            break
        try:
            answer = httpx.get(url, timeout=2)
            if answer.status_code == httpx.codes.OK and is_ready(answer.json() if answer.content else True):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.2)
    tail = "\n".join(service.log.read_text(errors="replace").splitlines()[-15:])
    raise UserError(f"{service.name} did not answer at {url}; the end of {service.log}:\n{tail}")


def create_repository(bare: Path, first_values: str = FIRST_VALUES) -> None:
    """Create the repository that Argo CD follows, with one values file per environment."""
    work = bare.parent / "first"
    git = shutil.which("git")
    if git is None:
        raise UserError("git is not installed; the release goes through a Git repository")
    values = work / VALUES_PATH
    values.parent.mkdir(parents=True)
    values.write_text(first_values, encoding="utf-8")
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
