"""Tell Kubernetes that the reconciler's passes end, and Prometheus when the last one did."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Gauge, generate_latest

from ratchet.http_service import listen

STALLED_S = 600.0  # no pass takes as long: Git and MLflow have time limits of a minute or two
REQUEST_TIMEOUT_S = 10.0


class Health:
    """The time of the last pass, as /healthz and /metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.passed = Gauge(
            "ratchet_reconciler_pass_timestamp_seconds",
            "When the last pass ended, in Unix seconds",
            registry=self.registry,
        )
        self._beat_at = time.monotonic()

    def beat(self) -> None:
        """Note that a pass has ended."""
        self._beat_at = time.monotonic()
        self.passed.set_to_current_time()

    def is_stalled(self) -> bool:
        return time.monotonic() - self._beat_at > STALLED_S

    @contextmanager
    def served(self, host: str, port: int) -> Iterator[str]:
        """Serve from a thread until the block ends; yield the address. Raises UserError for a port that is taken."""
        health = self

        class Handler(BaseHTTPRequestHandler):
            timeout = REQUEST_TIMEOUT_S

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, generate_latest(health.registry), CONTENT_TYPE_LATEST)
                elif self.path == "/healthz":
                    self._answer(503 if health.is_stalled() else 200, b"", "text/plain")
                else:
                    self._answer(404, b"", "text/plain")

            def _answer(self, status: int, content: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Probes are no news."""

        with (
            listen(host, port, "--port") as listener,
            ThreadingHTTPServer((host, port), Handler, bind_and_activate=False) as server,
        ):
            server.socket.close()
            server.socket, server.daemon_threads = listener, True
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            yield f"http://{host}:{listener.getsockname()[1]}"
            server.shutdown()
            thread.join()
