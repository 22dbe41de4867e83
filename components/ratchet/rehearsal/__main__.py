"""Run the rehearsal cluster: small models of Argo CD, Flagger, gateway and kubelet in one process."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
import uvicorn
from fastapi import FastAPI

from ratchet.errors import UserError
from ratchet.http_service import listen
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.rehearsal.argo import Argo
from ratchet.rehearsal.cluster import Cluster, api
from ratchet.rehearsal.flagger import tick
from ratchet.rehearsal.flagger_io import ClusterWorld
from ratchet.rehearsal.gateway import gateway
from ratchet.rehearsal.kubelet import HOST, Kubelet
from ratchet.release.gate.tokens import VARIABLE, hook_token

MIN_POLL_S = 0.2
CANARY = "adapter-router"


@dataclass(frozen=True)
class Rehearsal:
    """The parts of one rehearsal, wired together."""

    cluster: Cluster
    argo: Argo
    kubelet: Kubelet
    world: ClusterWorld
    speed: float
    git_poll_s: float

    def loops(self) -> tuple[Callable[[threading.Event], None], ...]:
        """Return the loops; each runs in a thread of its own until the event is set."""
        return self._follow_git, self.kubelet.run, self._run_flagger

    def _follow_git(self, stop: threading.Event) -> None:
        self.argo.run(stop, max(MIN_POLL_S, self.git_poll_s / self.speed))

    def _run_flagger(self, stop: threading.Event) -> None:
        """Tick once per interval, divided by the speed; a late tick is dropped, as Go's ticker does."""
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            canary = self.world.spec()
            if canary is None:  # its wave comes once the Deployment is healthy
                due = time.monotonic() + MIN_POLL_S
                continue
            tick(self.world, canary)
            due = max(due + canary.interval_s / self.speed, time.monotonic())


def main(
    git_url: Annotated[str, typer.Option(help="repository that names the adapter to serve")],
    pool_url: Annotated[str, typer.Option(help="the model server that all routers share")],
    gate_url: Annotated[str, typer.Option(help="the gate that Flagger's webhooks ask")],
    lake: Annotated[str, typer.Option(help="where routers record events: a folder, or s3://bucket/prefix")],
    api_port: Annotated[int, typer.Option(help="port of the Kubernetes API")],
    gateway_port: Annotated[int, typer.Option(help="port that users call")],
    chart: Annotated[Path, typer.Option(help="folder of the chart adapter-router")],
    branch: str = "main",
    values_path: str = "environments/local/values.yaml",
    speed: Annotated[float, typer.Option(min=0.001, help="how much faster than its interval Flagger ticks")] = 30.0,
    git_poll_s: Annotated[float, typer.Option(help="seconds between Argo CD's looks at Git, divided by speed")] = 30.0,
    namespace: str = "ratchet",
    seed: Annotated[int, typer.Option(help="of the gateway's choices")] = 0,
    prometheus: Annotated[str, typer.Option(help="a Prometheus that reads the routers; none: their own metrics")] = "",
    state: Annotated[Path | None, typer.Option(help="file that keeps the cluster's objects through a restart")] = None,
) -> None:
    """Run the rehearsal cluster until SIGTERM or Ctrl-C."""
    try:
        with contextlib.ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ratchet-rehearsal-")))
            for_api = stack.enter_context(listen(HOST, api_port, "--api-port"))
            for_users = stack.enter_context(listen(HOST, gateway_port, "--gateway-port"))
            is_remote = lake.startswith("s3://")
            home = lake if is_remote else str(Path(lake).absolute())
            logs = scratch / "logs" if is_remote else Path(home) / "work" / "rehearsal"
            gate = {"url": gate_url, "token": hook_token(os.environ.get(VARIABLE, ""))}
            parameters = {"pool": {"url": pool_url}, "gate": gate, "lake": home}
            if prometheus:
                parameters["prometheus"] = {"address": prometheus}
            cluster = Cluster(namespace, state)
            argo = Argo(cluster, git_url, branch, values_path, chart, scratch / "clone.git", parameters)
            argo.sync()
            if not argo.renders("Canary", CANARY):
                raise UserError(f"{chart} renders no Canary {CANARY}; keep its `name` as it is")
            kubelet = Kubelet(cluster, AdapterPool(pool_url), logs)
            rehearsal = Rehearsal(
                cluster, argo, kubelet, ClusterWorld(cluster, CANARY, bool(prometheus)), speed, git_poll_s
            )
            asyncio.run(serve(rehearsal, {for_api: api(cluster), for_users: gateway(cluster, CANARY, seed)}))
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


async def serve(rehearsal: Rehearsal, apps: dict[socket.socket, FastAPI]) -> None:
    """Serve and run the loops until a signal, or until one loop fails: a partial cluster would mislead."""
    servers = [Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)) for app in apps.values()]
    stop = threading.Event()

    def end() -> None:
        stop.set()
        for server in servers:
            server.should_exit = True

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)
    tasks = [asyncio.create_task(asyncio.to_thread(run, stop)) for run in rehearsal.loops()]
    for task in tasks:
        task.add_done_callback(lambda _: end())
    try:
        await asyncio.gather(
            *(server.serve(sockets=[listener]) for server, listener in zip(servers, apps, strict=True))
        )
    finally:
        end()
        await asyncio.wait(tasks)
        rehearsal.kubelet.close()
        rehearsal.world.client.close()
    await asyncio.gather(*tasks)


class Server(uvicorn.Server):
    """Two servers share one process, so neither may own its signals."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


if __name__ == "__main__":
    typer.run(main)
