"""A real browser for tests: Debian's chromium, spoken to by its own DevTools protocol."""

import json
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import websocket

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chromium-browser"))), None)
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--remote-debugging-port=0")
PATIENCE_S = 30.0


class Page:
    """One tab."""

    def __init__(self, socket: websocket.WebSocket) -> None:
        self._socket, self._last = socket, 0

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._last += 1
        self._socket.send(json.dumps({"id": self._last, "method": method, "params": params}))
        while True:
            said = json.loads(self._socket.recv())
            if said.get("id") == self._last:
                assert "error" not in said, said
                return dict(said["result"])

    def show(self, url: str, width: int, height: int) -> None:
        is_phone = width < 600
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone
        )
        self.send("Page.navigate", url="about:blank")  # else a change of fragment alone loads nothing
        self.send("Page.navigate", url=url)

    def tell(self, script: str) -> Any:
        """What an expression comes to, in the page."""
        return self.send("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def until(self, script: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not self.tell(script):
            assert time.monotonic() < deadline, (
                f"never true: {script}; the page says {self.tell('document.body.innerText')}"
            )
            time.sleep(0.05)


@contextmanager
def page(folder: Path) -> Iterator[Page]:
    """A tab of a browser of its own, which ends with the block."""
    assert CHROMIUM is not None
    process = subprocess.Popen(
        [CHROMIUM, *FLAGS, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        port = _port(folder / "DevToolsActivePort", process)
        tab = next(each for each in httpx.get(f"http://127.0.0.1:{port}/json").json() if each["type"] == "page")
        socket = websocket.create_connection(tab["webSocketDebuggerUrl"], timeout=PATIENCE_S, suppress_origin=True)
        try:
            yield Page(socket)
        finally:
            socket.close()
    finally:
        process.terminate()
        process.wait()


def _port(file: Path, process: subprocess.Popen[bytes]) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(FileNotFoundError, IndexError, ValueError):
            return int(file.read_text().splitlines()[0])
        time.sleep(0.05)
    raise AssertionError("chromium does not start")
