"""What every HTTP service shares: errors in OpenAI's shape, listening sockets, serving until a signal."""

import math
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from ratchet.errors import UserError

BACKLOG = 1024
GRACE_S = 25  # for open requests; Kubernetes kills after 30


class RequestRefused(Exception):
    """A request that gets an error status and a message for its sender, who may come back after `retry_after_s`."""

    def __init__(self, status: int, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.retry_after_s = status, message, retry_after_s


def answer_errors(app: FastAPI, invalid_status: int) -> None:
    """Answer `RequestRefused`, and bodies of the wrong shape with `invalid_status`, in OpenAI's error format."""

    @app.exception_handler(RequestRefused)
    async def refused(request: Request, error: RequestRefused) -> JSONResponse:
        response = error_response(error.status, error.message)
        if error.retry_after_s is not None:
            response.headers["retry-after"] = str(math.ceil(error.retry_after_s))
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        faults = [f"{'.'.join(str(part) for part in fault['loc'][1:])}: {fault['msg']}" for fault in error.errors()]
        return error_response(invalid_status, "; ".join(faults))

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(error.status_code, error.detail), error.status_code, error.headers)


def run_server(create_app: Callable[[], FastAPI], host: str, port: int, name: str) -> None:
    """Serve until SIGTERM or SIGINT; port 0 takes a free port. Raises UserError where the port is taken.

    It listens before `create_app` is called, so that a taken port fails before a model is loaded.
    """
    with listen(host, port) as listener:
        app = create_app()
        print(f"{name}: http://{host}:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        settings = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=GRACE_S)
        uvicorn.Server(settings).run(sockets=[listener])


def listen(host: str, port: int, option: str = "") -> socket.socket:
    """Return a listening socket. Raises UserError where the address is taken, naming `option` that chose the port."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        chosen_by = f"{option} {port}: " if option else ""
        raise UserError(
            f"{chosen_by}cannot listen on {host}:{port}: {error.strerror}; stop what runs there or take another port"
        ) from None
    return listener


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return different ports that nothing listens on now; another process may take one before the caller does."""
    with ExitStack() as sockets:
        probes = [sockets.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind((host, 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def exit_on_user_error(main: Callable[[], None]) -> None:
    """Run a command; print a UserError as one line on stderr and exit with code 2."""
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from None


def error_response(status: int, message: str) -> JSONResponse:
    return JSONResponse(error_body(status, message), status)


def error_body(status: int, message: str) -> dict[str, Any]:
    """An error in OpenAI's shape, as vLLM answers it."""
    kind = {400: "BadRequestError", 401: "Unauthorized", 404: "NotFoundError", 429: "RateLimitError"}
    return {"error": {"message": message, "type": kind.get(status, "Error"), "param": None, "code": status}}
