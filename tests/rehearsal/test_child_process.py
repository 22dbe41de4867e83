"""A child process and the life of its parent."""

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from ratchet.http_service import free_ports

PATIENCE_S = 60.0  # for a busy machine; an idle one needs two
PARENT = """
import sys, time
from ratchet.rehearsal import child_process
print(child_process.start("ratchet.router.app", output=sys.stderr).pid, flush=True)
time.sleep(600)
"""


def test_router_dies_with_a_killed_parent(tmp_path: Path) -> None:
    port = free_ports(1)[0]
    settings = {
        "POOL_URL": "http://127.0.0.1:1",
        "LAKE": str(tmp_path),
        "HOST": "127.0.0.1",
        "PORT": str(port),
        "SECRET": "s" * 32,
    }
    environment = os.environ | {f"RATCHET_{name}": value for name, value in settings.items()}
    parent = subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout
        router = psutil.Process(int(parent.stdout.readline()))
        wait_until_alive(f"http://127.0.0.1:{port}/healthz")
    finally:
        parent.kill()
        parent.communicate()
    assert psutil.wait_procs([router], timeout=PATIENCE_S)[1] == []


def wait_until_alive(url: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            httpx.get(url, trust_env=False).raise_for_status()
            return
        except httpx.TransportError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer within {PATIENCE_S} s")
