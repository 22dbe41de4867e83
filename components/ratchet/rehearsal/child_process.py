"""Processes that cannot outlive the one that started them, not even when that is killed.

`python -m ratchet.rehearsal.child_process MODULE ARG…` runs a module whose standard input is a pipe that the parent
holds open. The kernel closes the pipe with the parent, however that ends, on every platform.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from typing import IO

GRACE_S = 5.0


def start(module: str, *args: object, output: IO[bytes], env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `python -m module args…`, with stdout and stderr to `output`."""
    # -P: a folder called `ratchet` in the working directory, such as a clone, must not be imported as the package.
    command = [sys.executable, "-P", "-m", "ratchet.rehearsal.child_process", module, *map(str, args)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=output, env=env)


def wait_or_kill(process: subprocess.Popen[bytes], patience_s: float) -> None:
    """Wait for a process that was asked to end, and kill it after `patience_s` seconds."""
    try:
        process.wait(max(0.0, patience_s))
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdin
    process.stdin.close()


def die_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the parent has closed the pipe; a buffered read would delay the exit
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=die_with_parent, daemon=True).start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
