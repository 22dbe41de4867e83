"""Apps over real HTTP, from threads."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI

from ratchet.http_service import listen, server_settings

Serve = Callable[[FastAPI], str]


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The app's address, served over real HTTP from a thread."""
    with listen("127.0.0.1", 0) as listener:
        server = uvicorn.Server(server_settings(app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
