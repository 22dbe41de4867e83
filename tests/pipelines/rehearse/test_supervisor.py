"""Services that are killed are started again, and none outlives a rehearsal that is killed itself."""

import subprocess
import sys
import time
from pathlib import Path

import psutil

from ratchet_pipelines.rehearse.supervisor import supervising

PATIENCE_S = 60.0  # for a busy machine
SERVICE = ("http.server", "--bind", "127.0.0.1", "0")
REHEARSAL = f"""
import sys, time
from pathlib import Path
from ratchet_pipelines.rehearse.supervisor import supervising
with supervising(Path(sys.argv[1])) as supervisor:
    print(supervisor.start("web", *{SERVICE}).process.pid, flush=True)
    time.sleep(600)
"""


def test_a_killed_service_is_started_again_and_ends_with_the_block(tmp_path: Path) -> None:
    with supervising(tmp_path) as supervisor:
        web = supervisor.start("web", *SERVICE)
        web.kill()
        deadline = time.monotonic() + PATIENCE_S
        while web.starts < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        again = psutil.Process(web.process.pid)
        assert again.is_running()
    assert psutil.wait_procs([again], timeout=PATIENCE_S)[1] == []


def test_services_end_with_a_rehearsal_that_is_killed(tmp_path: Path) -> None:
    rehearsal = subprocess.Popen([sys.executable, "-c", REHEARSAL, tmp_path], stdout=subprocess.PIPE, text=True)
    try:
        assert rehearsal.stdout
        service = psutil.Process(int(rehearsal.stdout.readline()))
    finally:
        rehearsal.kill()
        rehearsal.communicate()
    assert psutil.wait_procs([service], timeout=PATIENCE_S)[1] == []
