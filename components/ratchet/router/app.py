"""Serve one adapter in front of the model pool, and record every answer and every vote.

Run as `python -m ratchet.router.app`, configured by RATCHET_* variables. Flagger shifts traffic between two
Deployments of it, so it starts within a second or two and imports nothing that touches a model.
"""

import os
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any

import jwt
from fastapi import Depends, FastAPI, Request, Security
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware

from ratchet.http_limits import Limits, RequestRefused
from ratchet.http_service import (
    bearer_of,
    exit_on_user_error,
    in_shape,
    is_secret,
    new_service,
    openapi_body,
    read_json,
    run_server,
)
from ratchet.router.apis import CHAT, PASSED_ON, RECORDED, Api
from ratchet.router.chat_request import ChatRequest, InvalidRequest
from ratchet.router.event_log import EventLog
from ratchet.router.feedback import VoteRequest
from ratchet.router.pool_client import PoolFailed
from ratchet.router.relay import NO_TICKET, Relay
from ratchet.router.settings import RouterSettings
from ratchet.router.tokens import Ticket, by_digest, parse_keys, tenant_of
from ratchet.store import Store, open_store

LIMITS = Limits(body_bytes=4 << 20, held_bytes=128 << 20)
MAX_VOTE_TOKENS = 200
GRACE_S = 144  # for open answers; the chart's pods are killed after 150
OPERATOR_HEADER = "x-operator-token"
SHOWN_TO_PAGES = ("x-interaction-id", "x-request-id", "x-feedback-token", "retry-after")
PREFLIGHT_S = 600

api_key_header = HTTPBearer(
    scheme_name="ApiKey", auto_error=False, description="a tenant's API key, where the router has any"
)
feedback_token_header = HTTPBearer(
    scheme_name="FeedbackToken", auto_error=False, description="the x-feedback-token that came with the answer"
)
SOME_OBJECT = {
    "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
}  # the pool's API says what is in it
ApiKey = Annotated[HTTPAuthorizationCredentials | None, Security(api_key_header)]
Token = Annotated[HTTPAuthorizationCredentials | None, Security(feedback_token_header)]
TenantCheck = Callable[[HTTPAuthorizationCredentials | None], str | None]


def create_app(settings: RouterSettings, store: Store) -> FastAPI:
    """Return the router as an ASGI app that writes its events to `store`."""
    # The host tells pods apart, the random part the processes of one host.
    log = EventLog(store, f"{socket.gethostname()}-{secrets.token_hex(4)}")
    relay = Relay(settings, log)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with relay.upstream, relay.peer, log:
            yield
            await relay.close()

    app = new_service("Ratchet router", limits=LIMITS, lifespan=lifespan)
    if origins := settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            expose_headers=SHOWN_TO_PAGES,
            max_age=PREFLIGHT_S,
        )
    _add_probes(app, relay, settings)
    tenant = _tenant_check(settings)
    _add_chats(app, relay, settings, tenant)
    _add_passed_on(app, relay, settings, tenant)
    _add_votes(app, relay, tenant)
    _add_models(app, relay, settings, tenant)
    return app


def _add_chats(app: FastAPI, relay: Relay, settings: RouterSettings, tenant: TenantCheck) -> None:
    """Add the routes of answers. They read the body themselves: FastAPI would read it before the key."""
    metrics = relay.metrics
    user_headers, chat_headers = settings.names_in

    async def answer(api: Api, request: Request, key: ApiKey) -> tuple[Response, bool]:
        """Return the answer, and whether it is counted elsewhere: by the other arm, or at the end of a stream."""
        asks = tenant(key or _anthropic_key(request.headers))
        body = await read_json(request)  # whole, for the pool; the router reads a part of it
        headers = request.headers
        named = [headers.get(name) for name in user_headers], [headers.get(name) for name in chat_headers]
        asked = _read(body, api, named, _signed_user(settings, headers))
        left, begun = partial(_left, request), None
        if api is CHAT:
            begun, response = await relay.keep_on_its_arm(asked, asks, await request.body(), headers, left)
            if response is not None:
                return response, True
        shows_arm = is_operator(settings, headers.get(OPERATOR_HEADER))
        response = await relay.chat(api, asked, body, asks, headers, left, begun=begun, shows_arm=shows_arm)
        return response, isinstance(response, StreamingResponse)

    def add(api: Api) -> None:
        @app.post(api.path, openapi_extra=SOME_OBJECT)
        async def chat(request: Request, key: ApiKey) -> Response:
            status, is_counted = 500, False
            try:
                response, is_counted = await answer(api, request, key)
                status = response.status_code
            except RequestRefused as error:
                status = error.status
                raise
            finally:
                if not is_counted:
                    metrics.count_request(status)
            return response

    for api in RECORDED:
        add(api)


def _add_passed_on(app: FastAPI, relay: Relay, settings: RouterSettings, tenant: TenantCheck) -> None:
    """Add the routes of answers that are not recorded."""

    async def pass_on(request: Request, key: ApiKey) -> Response:
        tenant(key)
        shows_arm = is_operator(settings, request.headers.get(OPERATOR_HEADER))
        return await relay.pass_on(request.url.path, await read_json(request), request.headers, shows_arm)

    for path in PASSED_ON:
        app.add_api_route(path, pass_on, methods=["POST"], openapi_extra=SOME_OBJECT)


def _add_votes(app: FastAPI, relay: Relay, tenant: TenantCheck) -> None:
    metrics = relay.metrics

    async def read(request: Request, token: Token) -> tuple[VoteRequest, Ticket]:
        """Return the vote and its ticket: of the answer's token, or of the answer's id for the tenant whose key it is.

        Where tenants have no keys, as on a laptop, the id is enough. Nothing is parsed for whoever has neither.
        """
        ticket = relay.find_ticket(token.credentials) if token else None
        try:
            asks = None if ticket else tenant(token)
        except RequestRefused:
            raise RequestRefused(401, NO_TICKET) from None
        vote = in_shape(await read_json(request, MAX_VOTE_TOKENS), VoteRequest)
        if ticket is None:
            return vote, relay.ticket_of(vote, asks)
        relay.check_alike(vote, ticket)
        return vote, ticket

    @app.post("/v1/feedback", openapi_extra=openapi_body(VoteRequest))
    async def feedback(request: Request, token: Token) -> Response:
        try:
            vote, ticket = await read(request, token)
            feedback_id = await relay.vote(vote, ticket)
        except RequestRefused as error:
            metrics.refused_votes.labels(metrics.arm, error.status).inc()
            raise
        return JSONResponse({"feedback_id": feedback_id})


def _add_models(app: FastAPI, relay: Relay, settings: RouterSettings, tenant: TenantCheck) -> None:
    """Add the model list: the stable name alone, since what stands behind it would show the arm."""
    card = {"id": settings.public_model, "object": "model", "created": 0, "owned_by": "ratchet"}

    @app.get("/v1/models")
    async def models(key: ApiKey) -> dict[str, Any]:
        tenant(key)
        return {"object": "list", "data": [card]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str, key: ApiKey) -> dict[str, Any]:
        tenant(key)
        relay.check_model(name)
        return card


def _tenant_check(settings: RouterSettings) -> TenantCheck:
    """Return a function from a request's key to its tenant: None where there are no keys, 401 for an unknown key."""
    tenants = by_digest(parse_keys(settings.api_keys))

    def tenant(key: HTTPAuthorizationCredentials | None) -> str | None:
        if not tenants:
            return None
        name = tenant_of(key.credentials, tenants) if key else None
        if name is None:
            raise RequestRefused(401, "send your tenant's key: authorization: Bearer KEY")
        return name

    return tenant


def _read(body: Any, api: Api, named: tuple[list[str | None], list[str | None]], signed: str | None) -> ChatRequest:
    try:
        return ChatRequest.read(body, api.messages_of, named, signed)
    except InvalidRequest as error:
        raise RequestRefused(400, str(error), param=error.param) from None


def _anthropic_key(headers: Headers) -> HTTPAuthorizationCredentials | None:
    """Return the key as Anthropic's clients send it."""
    given = headers.get("x-api-key")
    return HTTPAuthorizationCredentials(scheme="Bearer", credentials=given) if given else None


def _signed_user(settings: RouterSettings, headers: Headers) -> str | None:
    """Return who asks as a front end has signed it; None without a signature or a secret to verify it with.

    Raises RequestRefused with 401 for a token that is forged, expired or without a subject.
    """
    token = headers.get(settings.user_jwt_header)
    if token is None or not settings.user_jwt_secret:
        return None
    try:
        claims = jwt.decode(token, settings.user_jwt_secret, ["HS256"], options={"require": ["exp", "sub"]})
    except jwt.InvalidTokenError as error:
        raise RequestRefused(401, f"{settings.user_jwt_header}: {error}; send one that is signed anew") from None
    return str(claims["sub"])


async def _left(request: Request) -> None:
    """Return when the client has gone; its body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def is_operator(settings: RouterSettings, given: str | None) -> bool:
    """Return whether this token may see arms; without a token to compare, whether only this machine can ask."""
    if given is None:
        return False
    return is_secret(given, settings.operator_token) if settings.operator_token else settings.is_local


def _add_probes(app: FastAPI, relay: Relay, settings: RouterSettings) -> None:
    was_seen = False

    async def operator(request: Request) -> None:
        given = request.headers.get(OPERATOR_HEADER) or bearer_of(request.headers)
        if not is_operator(settings, given):
            raise RequestRefused(401, "send the router's own token: authorization: Bearer $RATCHET_OPERATOR_TOKEN")

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    # The router's own readiness. It begins when the pool first serves the adapter; from then on votes can be taken,
    # and the fallback can answer, while the pool is away. That would otherwise take every router out of service.
    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        nonlocal was_seen
        if not was_seen:
            try:
                await relay.upstream.find()
            except PoolFailed as error:
                raise RequestRefused(503, f"not ready: {error.message}") from None
            was_seen = True
        return {"status": "ready"}

    @app.get("/poolz", dependencies=[Depends(operator)])
    async def pool() -> dict[str, str]:
        try:
            return {"status": "serving", "model": (await relay.upstream.find()).model_id}
        except PoolFailed as error:
            raise RequestRefused(503, error.detail) from None

    @app.get("/metrics", dependencies=[Depends(operator)])
    async def expose() -> Response:
        return Response(generate_latest(relay.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def main() -> None:
    """Serve until SIGTERM, as the environment configures. Raises UserError for a wrong configuration."""
    settings = RouterSettings.from_env(os.environ)
    store = open_store(settings.lake)
    run_server(lambda: create_app(settings, store), settings.host, settings.port, "router", GRACE_S)


if __name__ == "__main__":
    exit_on_user_error(main)
