"""Run services as processes that are restarted when they die, as pods are, and that end with this process."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ratchet.rehearsal import child_process

LOOK_S = 0.1
GRACE_S = 15.0


@dataclass
class Supervised:
    """One service: its command and its current process."""

    name: str
    command: tuple[str, ...]
    log: Path
    env: Mapping[str, str]
    process: subprocess.Popen[bytes] = field(init=False)
    starts: int = 0

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", **self.env}
        with self.log.open("ab") as file:
            self.process = child_process.start(*self.command, output=file, env=environment)
        self.starts += 1

    def kill(self) -> None:
        """Send SIGKILL: no handler runs."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


class Supervisor:
    """Restart services that die, until `end`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, Supervised] = {}
        self._lock = threading.Lock()

    def start(self, name: str, *command: object, **env: str) -> Supervised:
        service = Supervised(name, tuple(map(str, command)), self.folder / f"{name}.log", env)
        with self._lock:
            service.start()
            self.services[name] = service
        return service

    def stop(self, name: str) -> None:
        """Kill a service for good; nothing happens if it is not there."""
        with self._lock:
            service = self.services.pop(name, None)
        if service is not None:
            service.kill()

    def run(self, stop: threading.Event) -> None:
        while not stop.wait(LOOK_S):
            with self._lock:
                for service in self.services.values():
                    if service.process.poll() is not None and not stop.is_set():
                        child_process.wait_or_kill(service.process, 0.0)
                        service.start()

    def end(self) -> None:
        with self._lock:
            for service in self.services.values():
                service.process.terminate()
            deadline = time.monotonic() + GRACE_S
            for service in self.services.values():
                child_process.wait_or_kill(service.process, deadline - time.monotonic())


@contextmanager
def supervising(folder: Path) -> Iterator[Supervisor]:
    """Yield a supervisor whose services all end with the block."""
    supervisor, stop = Supervisor(folder), threading.Event()
    watching = threading.Thread(target=supervisor.run, args=(stop,), daemon=True)
    watching.start()
    try:
        yield supervisor
    finally:
        stop.set()
        watching.join()
        supervisor.end()
