"""Git over HTTP by `git http-backend`, which nobody here wrote: bare repositories, read by all, pushed to by token."""

import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from support.release_edges import git

Writers = Mapping[str, set[str]]
"""Tokens that may push, by repository."""


def need_git_http() -> Path:
    """Its path; skips where Git came without it."""
    if shutil.which("git") is None:
        pytest.skip("no git on this machine")
    found = Path(git("--exec-path", cwd=Path.cwd()).strip()) / "git-http-backend"
    if not found.exists():
        pytest.skip(f"no {found}")
    return found


def bare_repository(root: Path, name: str, files: Mapping[str, str]) -> None:
    """Make `name`.git under the root, with one commit on main."""
    work = root / f"{name}-work"
    work.mkdir(parents=True)
    git("init", "--quiet", "--initial-branch=main", ".", cwd=work)
    for path, text in files.items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
    git("add", ".", cwd=work)
    git("commit", "--quiet", "--message=Begin", cwd=work)
    git("clone", "--quiet", "--bare", str(work), str(root / f"{name}.git"), cwd=root)


@contextmanager
def git_server(root: Path, writers: Writers) -> Iterator[str]:
    """The server's URL. `writers` may change while it runs."""
    backend = need_git_http()

    def serve(environ: dict[str, Any], start: Callable[..., Any]) -> Iterable[bytes]:
        token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ")
        is_push = "git-receive-pack" in environ["PATH_INFO"] + environ.get("QUERY_STRING", "")
        repository = environ["PATH_INFO"].strip("/").split(".git")[0]
        if is_push and token not in writers.get(repository, set()):
            start("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"you may not push here\n"]
        names = ("PATH_INFO", "QUERY_STRING", "REQUEST_METHOD", "CONTENT_TYPE", "CONTENT_LENGTH")
        asked = {name: environ.get(name) or "" for name in names}
        place = {"GIT_PROJECT_ROOT": str(root), "GIT_HTTP_EXPORT_ALL": "1", "REMOTE_USER": "someone"}
        encoding = {"HTTP_CONTENT_ENCODING": environ.get("HTTP_CONTENT_ENCODING", "")}
        body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        done = subprocess.run(
            [str(backend)], input=body, env={**os.environ, **asked, **place, **encoding}, capture_output=True
        )
        head, _, answer = done.stdout.partition(b"\r\n\r\n")
        pairs = [line.split(": ", 1) for line in head.decode().splitlines() if ": " in line]
        headers = [(name, value) for name, value in pairs]
        status = next((value for name, value in headers if name == "Status"), "200 OK")
        start(status, [(name, value) for name, value in headers if name != "Status"])
        return [answer]

    class Silent(WSGIRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with make_server("127.0.0.1", 0, serve, handler_class=Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
