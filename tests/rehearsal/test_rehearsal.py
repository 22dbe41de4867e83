"""The rehearsal as a process: real Git, real Helm, real routers; the pool and the gate are fakes at its edges."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from ratchet.digest import digest_tree
from ratchet.http_service import free_ports
from ratchet.rehearsal.__main__ import main
from support.rehearsal_fakes import FakeGate, FakePool, served
from support.router_client import OPERATOR

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "adapter-router"
VALUES = "environments/local/values.yaml"
BASE = {"name": "base", "version": "0", "uri": "", "digest": "base"}
PATIENCE_S = 60.0  # for a busy machine; an idle one needs two


@dataclass
class Stage:
    """A running rehearsal and everything around it."""

    folder: Path
    pool: FakePool
    gate: FakeGate
    process: subprocess.Popen[bytes]
    api: httpx.Client
    users: httpx.Client
    versions: int = field(default=0)

    def adapter(self) -> dict[str, str]:
        """A new adapter in the lake, as the values file names it."""
        self.versions += 1
        folder = self.folder / "lake" / "adapters" / f"adapter-{self.versions}"
        folder.mkdir(parents=True)
        (folder / "adapter_config.json").write_text(f'{{"version": {self.versions}}}')
        digest = digest_tree(folder)
        return {"name": "adapter", "version": str(self.versions), "uri": str(folder), "digest": digest}

    def push(self, adapter: dict[str, str]) -> None:
        """Commit an adapter to the branch that the rehearsal follows."""
        commit(self.folder, adapter)

    def canary(self) -> dict[str, Any]:
        path = "/apis/flagger.app/v1beta1/namespaces/ratchet/canaries/adapter-router"
        return self.api.get(path).raise_for_status().json()

    def deployment(self, name: str) -> dict[str, Any]:
        return self.api.get(f"/apis/apps/v1/namespaces/ratchet/deployments/{name}").raise_for_status().json()

    def adapter_of(self, deployment: str) -> dict[str, str]:
        annotations = self.deployment(deployment)["spec"]["template"]["metadata"]["annotations"]
        return {key: annotations[f"ratchet.dev/adapter-{key}"] for key in BASE}

    def weights(self) -> list[int]:
        path = "/apis/gateway.networking.k8s.io/v1/namespaces/ratchet/httproutes/adapter-router"
        route = self.api.get(path).raise_for_status().json()
        return [backend["weight"] for backend in route["spec"]["rules"][0]["backendRefs"]]

    def phase(self) -> str:
        return str(self.canary()["status"].get("phase", ""))

    def ask(self) -> httpx.Response:
        body = {"model": "assistant", "messages": [{"role": "user", "content": "hello"}]}
        return self.users.post("/v1/chat/completions", json=body, headers=OPERATOR)

    def routers(self) -> list[psutil.Process]:
        return [child for child in psutil.Process(self.process.pid).children() if "ratchet.router.app" in cmd(child)]


def cmd(process: psutil.Process) -> list[str]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.cmdline()
    return []


def wait_for(claim: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not claim():
        assert time.monotonic() < deadline, f"not within {PATIENCE_S} s: {what}"
        time.sleep(0.05)


def commit(folder: Path, adapter: dict[str, str]) -> None:
    work = folder / "work"
    if not work.exists():
        git(folder, "init", "--bare", "--quiet", "--initial-branch=main", "origin.git")
        git(folder, "clone", "--quiet", "origin.git", "work")
        git(work, "checkout", "--quiet", "-B", "main")
    (work / VALUES).parent.mkdir(parents=True, exist_ok=True)
    (work / VALUES).write_text(yaml.safe_dump({"adapter": adapter}))
    git(work, "add", "-A")
    git(work, "-c", "user.name=Test", "-c", "user.email=test@example.com", "commit", "--quiet", "-m", "Set the adapter")
    git(work, "push", "--quiet", "origin", "main")


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)


def command(folder: Path, pool_url: str, gate_url: str, api_port: int, gateway_port: int) -> list[str]:
    options = {
        "git-url": folder / "origin.git",
        "pool-url": pool_url,
        "gate-url": gate_url,
        "lake": folder / "lake",
        "chart": CHART,
        "api-port": api_port,
        "gateway-port": gateway_port,
        "speed": 100,
    }
    flags = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    return [sys.executable, "-m", "ratchet.rehearsal", *flags]


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Stage]:
    commit(folder, BASE)
    pool, gate = FakePool(), FakeGate()
    ports = free_ports(1)[0], free_ports(1)[0]
    with contextlib.ExitStack() as stack:
        pool_url, gate_url = (stack.enter_context(served(fake)) for fake in (pool, gate))
        process = subprocess.Popen(command(folder, pool_url, gate_url, *ports))
        stack.callback(end, process)
        api, users = (stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}")) for port in ports)
        stage = Stage(folder, pool, gate, process, api, users)
        wait_for(lambda: is_up(stage), "the rehearsal is initialised")
        yield stage


def end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def is_up(stage: Stage) -> bool:
    assert stage.process.poll() is None, "the rehearsal ended"
    try:
        return stage.phase() == "Initialized"
    except (httpx.TransportError, httpx.HTTPStatusError):  # the Canary comes a wave later
        return False


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with running(tmp_path_factory.mktemp("rehearsal")) as found:
        yield found
        routers = found.routers()
        found.process.terminate()
        assert found.process.wait(20) == 0
        assert not [router for router in routers if router.is_running()]


@pytest.fixture
def settled(stage: Stage) -> Stage:
    """The stage between runs: no canary under way, a permissive gate, Git naming what the primary serves."""
    stage.gate.refused = {"rollback"}
    promoted = stage.adapter_of("adapter-router-primary")
    if yaml.safe_load((stage.folder / "work" / VALUES).read_text())["adapter"] != promoted:
        stage.push(promoted)
    wait_for(lambda: stage.adapter_of("adapter-router") == promoted, "the target names it too")
    wait_for(lambda: stage.phase() in ("Initialized", "Succeeded", "Failed"), "no canary under way")
    stage.gate.calls.clear()
    return stage


def test_promotion_puts_the_new_adapter_on_the_primary_and_no_request_fails(settled: Stage) -> None:
    stage, adapter = settled, settled.adapter()
    answers: list[httpx.Response] = []
    stop = threading.Event()

    def use() -> None:
        while not stop.wait(0.02):
            answers.append(stage.ask())

    user = threading.Thread(target=use)
    user.start()
    try:
        stage.push(adapter)
        wait_for(lambda: stage.phase() == "Progressing", "a canary starts")
        wait_for(lambda: stage.phase() == "Succeeded", "the canary succeeds")
        wait_for(lambda: not stage.deployment("adapter-router")["status"]["replicas"], "the canary is gone")
    finally:
        stop.set()
        user.join()
    assert {answer.status_code for answer in answers} == {200}
    served_by = {(answer.headers["x-arm"], answer.headers["x-adapter-digest"]) for answer in answers}
    assert ("canary", adapter["digest"]) in served_by
    last = stage.ask()
    assert (last.headers["x-arm"], last.headers["x-adapter-digest"]) == ("primary", adapter["digest"])
    assert stage.weights() == [100, 0]


def test_rollback_keeps_the_old_adapter_and_going_back_in_git_changes_nothing(settled: Stage) -> None:
    stage, adapter = settled, settled.adapter()
    before = stage.ask().headers["x-adapter-digest"]
    stage.push(adapter)
    wait_for(lambda: stage.weights()[1] == 20, "the canary takes traffic")
    assert f"adapter@v{adapter['version']}" in stage.pool.adapters
    stage.gate.refused.clear()
    wait_for(lambda: stage.phase() == "Failed", "the canary fails")
    assert stage.weights() == [100, 0]
    assert stage.ask().headers["x-adapter-digest"] == before
    status = stage.canary()["status"]
    assert status["conditions"][0]["status"] == "False"
    stage.gate.calls.clear()
    stage.push(stage.adapter_of("adapter-router-primary"))
    wait_for(lambda: applied_is_promoted(stage), "Flagger takes note of the revert")
    assert stage.phase() == "Failed"
    assert not [hook for hook, _ in stage.gate.calls if hook == "confirm-rollout"]
    wait_for(lambda: f"adapter@v{adapter['version']}" not in stage.pool.adapters, "the abandoned adapter is unloaded")


def applied_is_promoted(stage: Stage) -> bool:
    status = stage.canary()["status"]
    return bool(status["lastAppliedSpec"] == status["lastPromotedSpec"])


def test_values_that_the_chart_refuses_change_nothing_and_are_told(settled: Stage) -> None:
    stage = settled
    stage.push(BASE | {"digest": "champion"})
    wait_for(lambda: any("/adapter/digest" in event["text"] for event in stage.api.get("/events").json()), "refusal")
    assert stage.ask().status_code == 200


def test_unknown_objects_are_not_found_in_kubernetes_shape(stage: Stage) -> None:
    answer = stage.api.get("/apis/apps/v1/namespaces/ratchet/deployments/nothing")
    assert (answer.status_code, answer.json()["kind"], answer.json()["reason"]) == (404, "Status", "NotFound")
    assert stage.api.get("/apis/apps/v1/namespaces/other/deployments/adapter-router").status_code == 404


def test_port_in_use_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert refused(tmp_path, api_port=port) == 2
    assert f"--api-port {port}" in capsys.readouterr().err


def test_repository_that_is_not_there_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(tmp_path, api_port=free_ports(1)[0]) == 2
    assert "nowhere.git" in capsys.readouterr().err


def refused(folder: Path, api_port: int) -> int | str | None:
    """The exit code of a rehearsal that cannot start."""
    with pytest.raises(SystemExit) as ended:
        main(
            git_url=str(folder / "nowhere.git"),
            pool_url="http://127.0.0.1:1",
            gate_url="http://127.0.0.1:1",
            lake=str(folder),
            api_port=api_port,
            gateway_port=free_ports(1)[0],
            chart=CHART,
        )
    return ended.value.code
