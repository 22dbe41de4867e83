"""A real S3 server (moto) in a process of its own.

In its bucket `careless` it accepts If-None-Match and ignores it; in `flaky` it is too busy for every eighth request,
and answers every third conditional write as S3 does while another write to the key is under way.
Conditional writes take turns: S3 looks and writes in one, moto in two, and of many creators two won.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

SERVE = """
import itertools
import sys
import threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

app = DomainDispatcherApplication(create_backend_app)
port = int(sys.argv[1])
turns, writes = itertools.count(1), itertools.count(1)
one_at_a_time = threading.Lock()

def refuse(start_response, status, code):
    start_response(status, [("content-type", "application/xml")])
    return [f"<Error><Code>{code}</Code><Message>Please try again.</Message></Error>".encode()]

def serve(environ, start_response):
    if environ["PATH_INFO"].startswith("/careless/"):
        environ.pop("HTTP_IF_NONE_MATCH", None)
    if environ["PATH_INFO"].startswith("/flaky/") and next(turns) % 8 == 0:
        return refuse(start_response, "503 Slow Down", "SlowDown")
    if environ["PATH_INFO"].startswith("/flaky/") and "HTTP_IF_NONE_MATCH" in environ and next(writes) % 3 == 0:
        return refuse(start_response, "409 Conflict", "ConditionalRequestConflict")
    if {"HTTP_IF_NONE_MATCH", "HTTP_IF_MATCH"} & set(environ):
        with one_at_a_time:
            return app(environ, start_response)
    return app(environ, start_response)

run_simple("127.0.0.1", port, serve, threaded=True)
"""


@contextmanager
def s3_server(*buckets: str) -> Iterator[str]:
    """The endpoint's URL, with empty buckets; credentials and endpoint are in the environment meanwhile."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    settings = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        _wait_for(url, server)
        for bucket in buckets:
            _make_bucket(bucket)
        yield url
    finally:
        server.terminate()
        server.wait()
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _make_bucket(name: str) -> None:
    import boto3

    client = boto3.client("s3")
    client.create_bucket(Bucket=name)
    client.close()


def _wait_for(url: str, server: subprocess.Popen[bytes], timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        assert server.poll() is None, "the S3 server died"
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(url)
