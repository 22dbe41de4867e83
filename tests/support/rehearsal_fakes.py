"""The rehearsal's neighbours, faked at its edges as real HTTP servers: the model pool and the gate."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BASE = "base-model"


class FakePool:
    """A model pool that lists, loads and unloads adapters, and answers with the name of the model asked."""

    def __init__(self) -> None:
        self.adapters: dict[str, str] = {}

    def get(self, path: str) -> tuple[int, Any]:
        adapters = [
            {"id": name, "object": "model", "parent": BASE, "root": path} for name, path in self.adapters.items()
        ]
        base = {"id": BASE, "object": "model", "parent": None, "root": BASE}
        return 200, {"object": "list", "data": [base, *adapters]}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        if path == "/v1/load_lora_adapter":
            if body["lora_name"] in self.adapters:
                return 400, {"error": "already loaded"}
            self.adapters[body["lora_name"]] = body["lora_path"]
            return 200, {}
        if path == "/v1/unload_lora_adapter":
            return (200 if self.adapters.pop(body["lora_name"], None) else 404), {}
        message = {"role": "assistant", "content": f"from {body['model']}"}
        return 200, {
            "id": "answer",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }


class FakeGate:
    """A gate that passes everything but what it is told to refuse, and asks for a rollback when told to."""

    def __init__(self) -> None:
        self.refused: set[str] = {"rollback"}
        self.statuses: dict[str, list[int]] = {}
        """Answers to give first, by hook."""
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def get(self, path: str) -> tuple[int, Any]:
        return 200, {}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        hook = path.removeprefix("/hooks/")
        self.calls.append((hook, body))
        if self.statuses.get(hook):
            return self.statuses[hook].pop(0), {}
        return (403 if hook in self.refused else 200), {}


@contextmanager
def served(fake: FakePool | FakeGate) -> Iterator[str]:
    """The URL of a fake, on a free port, for as long as the block runs."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(*fake.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._answer(*fake.post(self.path, body))

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
