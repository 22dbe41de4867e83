"""What every HTTP service shares: limits, errors in OpenAI's shape, listening sockets, serving until a signal."""

import hmac
import json
import math
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from typing import Any, TypeVar

import uvicorn
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.exceptions import HTTPException

from ratchet.errors import UserError
from ratchet.http_limits import (
    HOLD,
    TOKEN_BYTES,
    BoundedProtocol,
    BoundedRequests,
    Limits,
    RequestRefused,
    num_tokens,
    parse_json,
)

BACKLOG = 1024
SMALL = Limits()
MAX_TOKENS = 100_000  # strings and marks in a JSON body
GRACE_S = 25  # for open requests; Kubernetes kills after 30
# OpenAI's types and codes by status; others are `invalid_request_error`.
KINDS: dict[int, tuple[str, str | None]] = {
    401: ("authentication_error", "invalid_api_key"),
    403: ("permission_error", None),
    429: ("rate_limit_error", "rate_limit_exceeded"),
}
Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]
Shape = TypeVar("Shape", bound=BaseModel)


def new_service(title: str, *, limits: Limits = SMALL, lifespan: Lifespan | None = None) -> FastAPI:
    """Return an app without routes, within `limits`, that answers errors in OpenAI's format.

    Bodies of the wrong shape get 400, as OpenAI answers them. It does not describe itself: no /docs, no /openapi.json.
    """
    app = FastAPI(title=title, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.router.route_class = _StrictRoute
    app.add_middleware(BoundedRequests, limits=limits)

    @app.exception_handler(RequestRefused)
    async def refused(request: Request, error: RequestRefused) -> JSONResponse:
        body = error_body(error.status, printable(error.message, 1000), error.param, error.code)
        response = JSONResponse(body, error.status)
        if error.retry_after_s is not None:
            response.headers["retry-after"] = str(math.ceil(error.retry_after_s))
        if error.status == 401:
            response.headers["www-authenticate"] = "Bearer"
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(400, _first_fault(error))

    @app.exception_handler(HTTPException)
    async def not_served(request: Request, error: HTTPException) -> JSONResponse:
        return JSONResponse(error_body(error.status_code, printable(error.detail)), error.status_code, error.headers)

    return app


class _StrictRequest(Request):
    async def json(self) -> Any:
        return parse_json(await bounded_body(self, MAX_TOKENS))


class _StrictRoute(APIRoute):
    """A route that parses bodies with `parse_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handler(_StrictRequest(request.scope, request.receive))

        return strict


async def read_json(request: Request, max_tokens: int = MAX_TOKENS) -> Any:
    """Read and parse a body, in a route that has something to check before. Raises RequestRefused with 400."""
    try:
        return parse_json(await bounded_body(request, max_tokens))
    except json.JSONDecodeError as error:
        raise RequestRefused(400, f"not JSON: {error.msg}") from None


async def bounded_body(request: Request, max_tokens: int) -> bytes:
    """Read a JSON body that is safe to parse. Raises RequestRefused: 413 for more tokens, 429 if memory is short."""
    body = await request.body()
    count = num_tokens(body, enough=max_tokens)
    if count > max_tokens:
        raise RequestRefused(413, f"the body holds more than {max_tokens} values, names and marks")
    request.scope[HOLD](count * TOKEN_BYTES)
    return body


def in_shape(body: Any, shape: type[Shape]) -> Shape:
    """Return a parsed body as a model. Raises RequestRefused with 400 and the first fault."""
    try:
        return shape.model_validate(body)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = str(fault["loc"][0]) if fault["loc"] else None
        raise RequestRefused(400, _told(fault["loc"], fault["msg"]), param=place) from None


def openapi_body(shape: type[BaseModel]) -> dict[str, Any]:
    """Describe the body of a route that reads it by itself, for `openapi_extra`."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": shape.model_json_schema()}}}}


def _first_fault(error: RequestValidationError) -> str:
    """Return the first fault alone: a body may have as many as it has values."""
    fault = error.errors()[0]
    if fault["type"] == "json_invalid":
        return printable(f"not JSON: {fault['ctx']['error']}")
    return _told(fault["loc"][1:], fault["msg"])


def _told(place: Sequence[object], reason: str) -> str:
    return printable(f"{'.'.join(map(str, place))}: {reason}" if place else reason)


def printable(text: object, max_chars: int = 500) -> str:
    """Return `text` on one line, shortened, without control characters: fit for an answer or a log."""
    start = str(text)[: max_chars + 1]
    plain = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in start)
    return plain if len(start) <= max_chars else f"{plain[:max_chars]}…"


def is_secret(given: str, secret: str) -> bool:
    """Compare in constant time."""
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), secret.encode())


def bearer_of(headers: Mapping[str, str]) -> str:
    """Return the token of `authorization: Bearer TOKEN`; empty without one."""
    scheme, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def run_server(create_app: Callable[[], FastAPI], host: str, port: int, name: str, grace_s: int = GRACE_S) -> None:
    """Serve until SIGTERM or SIGINT, and then open requests for `grace_s`; port 0 takes a free port.

    Raises UserError where the port is taken. It listens before `create_app` is called, so that a taken port fails
    before a model is loaded.
    """
    with listen(host, port) as listener:
        app = create_app()
        print(f"{name}: http://{host}:{listener.getsockname()[1]}", file=sys.stderr, flush=True)
        uvicorn.Server(server_settings(app, grace_s=grace_s)).run(sockets=[listener])


def server_settings(app: FastAPI, log_level: str = "warning", grace_s: int = GRACE_S) -> uvicorn.Config:
    """Return uvicorn's settings, with our limits on connections and heads."""
    return uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_level=log_level,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=grace_s,
    )


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


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """An error in OpenAI's shape, with the type and code that its clients know for the status."""
    if status >= 500:
        kind = "server_error"
    else:
        kind, known = KINDS.get(status, ("invalid_request_error", None))
        code = code or known
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}
