"""Debian's Prometheus, which nobody here wrote: it scrapes what it is told to, and answers queries."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from ratchet.http_service import free_ports

SCRAPE_S = 0.5


def need_prometheus() -> None:
    """Skip where it is not installed."""
    if shutil.which("prometheus") is None or shutil.which("promtool") is None:
        pytest.skip("no prometheus on this machine: `make system` installs it")


class Prometheus:
    """One server; `targets` are read again whenever they change."""

    def __init__(self, url: str, targets: Path) -> None:
        self.url, self._targets = url, targets

    def scrape(self, pods: dict[str, str], namespace: str = "ratchet") -> None:
        """Read these from now on: addresses by pod, under the labels that the operator's PodMonitor gives."""
        groups = [
            {"targets": [url.removeprefix("http://")], "labels": {"namespace": namespace, "pod": pod}}
            for pod, url in pods.items()
        ]
        self._targets.write_text(json.dumps(groups))

    def query(self, expression: str) -> list[float]:
        """Return the values of all series of the answer."""
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expression}, timeout=30).raise_for_status()
        return [float(series["value"][1]) for series in answer.json()["data"]["result"]]

    def wait_for(self, expression: str, values: list[float], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while (found := self.query(expression)) != values:
            assert time.monotonic() < deadline, f"{expression}: {found}, not {values}"
            time.sleep(SCRAPE_S / 2)


@contextmanager
def prometheus(folder: Path, token: str) -> Iterator[Prometheus]:
    """A server that shows `token` to whatever it scrapes."""
    folder.mkdir(parents=True, exist_ok=True)
    targets, config = folder / "targets.json", folder / "prometheus.yml"
    targets.write_text("[]")
    job: dict[str, Any] = {
        "job_name": "pods",
        "authorization": {"credentials": token},
        "file_sd_configs": [{"files": [str(targets)]}],
    }
    interval = f"{round(SCRAPE_S * 1000)}ms"
    config.write_text(yaml.safe_dump({"global": {"scrape_interval": interval}, "scrape_configs": [job]}))
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address={url.removeprefix('http://')}",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not _is_ready(url):
            assert process.poll() is None, (folder / "prometheus.log").read_text()[-2000:]
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield Prometheus(url, targets)
    finally:
        process.terminate()
        process.wait(30)


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready", timeout=5).is_success
    except httpx.HTTPError:
        return False
