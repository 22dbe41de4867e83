"""A router process that cannot outlive the rehearsal, not even when that is killed: `python -m ratchet.rehearsal.pod`.

Its standard input is a pipe that the kubelet holds open. The kernel closes the pipe with the kubelet, however that
ends, on every platform.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE_S = 5.0


def die_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the other end is gone; a buffered read would hold up the exit
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_S)
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=die_with_parent, daemon=True).start()
    runpy.run_module("ratchet.serving.router", run_name="__main__", alter_sys=True)
