"""Serve one adapter in front of the model pool, and record every answer and every vote.

Run as `python -m ratchet.router.app`, configured by RATCHET_* variables. Flagger shifts traffic between two
Deployments of it, so it starts within a second or two and imports nothing that touches a model.
"""

import os
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated, Any

from fastapi import FastAPI, Request, Security
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ValidationError
from starlette.middleware.body_limit import RequestBodyLimitMiddleware

from ratchet.http_service import RequestRefused, answer_errors, exit_on_user_error, run_server
from ratchet.router.event_log import EventLog
from ratchet.router.feedback import VoteRequest
from ratchet.router.pool_client import PoolClient
from ratchet.router.relay import ChatRequest, Relay
from ratchet.router.settings import RouterSettings
from ratchet.router.tokens import parse_keys, tenant_of
from ratchet.store import Store, open_store

MAX_BODY_BYTES = 4 << 20

api_key_header = HTTPBearer(
    scheme_name="ApiKey", auto_error=False, description="a tenant's API key, where the router has any"
)
feedback_token_header = HTTPBearer(
    scheme_name="FeedbackToken", auto_error=False, description="the x-feedback-token that came with the answer"
)
ApiKey = Annotated[HTTPAuthorizationCredentials | None, Security(api_key_header)]
Token = Annotated[HTTPAuthorizationCredentials | None, Security(feedback_token_header)]


def create_app(settings: RouterSettings, store: Store) -> FastAPI:
    """Return the router as an ASGI app that writes its events to `store`."""
    # The host tells pods apart, the random part the processes of one host.
    log = EventLog(store, f"{socket.gethostname()}-{secrets.token_hex(4)}")
    upstream = PoolClient(
        settings.pool_url, settings.pool_model, settings.timeout_s, settings.retries, settings.fallback
    )
    relay = Relay(settings, log, upstream)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with upstream, log:
            yield
            await relay.close()

    app = FastAPI(title="Ratchet router", lifespan=lifespan)
    app.add_middleware(RequestBodyLimitMiddleware, max_body_size=MAX_BODY_BYTES)
    answer_errors(app, invalid_status=422)
    _add_probes(app, relay)
    _add_routes(app, relay, parse_keys(settings.api_keys))
    return app


def _add_routes(app: FastAPI, relay: Relay, tenants: dict[str, str]) -> None:
    metrics = relay.metrics

    def tenant(key: HTTPAuthorizationCredentials | None) -> str | None:
        if not tenants:
            return None
        name = tenant_of(key.credentials, tenants) if key else None
        if name is None:
            raise RequestRefused(401, "send your tenant's key: authorization: Bearer KEY")
        return name

    @app.post("/v1/chat/completions", openapi_extra=_json_body(ChatRequest))
    async def chat(request: Request, key: ApiKey) -> Response:
        status = 500
        try:
            asks = tenant(key)
            with _as_request_error():
                body = await request.json()  # whole, for the pool; the router reads a part of it
                parsed = ChatRequest.model_validate(body)
            response = await relay.chat(parsed, body, asks)
            status = response.status_code
        except RequestRefused as error:
            status = error.status
            raise
        except RequestValidationError:
            status = 422
            raise
        finally:
            metrics.requests.labels(metrics.arm, status).inc()
        return response

    # Reads the body directly, as above: FastAPI's parsing would take a tenth of the time of a vote.
    @app.post("/v1/feedback", openapi_extra=_json_body(VoteRequest))
    async def feedback(request: Request, token: Token) -> Response:
        try:
            with _as_request_error():
                vote = VoteRequest.model_validate_json(await request.body())
            feedback_id = await relay.vote(vote, token.credentials if token else "")
        except RequestRefused as error:
            metrics.refused_votes.labels(metrics.arm, error.status).inc()
            raise
        return JSONResponse({"feedback_id": feedback_id})


@contextmanager
def _as_request_error() -> Iterator[None]:
    """Turn errors of parsing a body into FastAPI's validation error."""
    try:
        yield
    except ValidationError as error:
        raise RequestValidationError([{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]) from None
    except (ValueError, RecursionError) as error:
        raise RequestValidationError([{"loc": ("body",), "msg": f"not JSON: {error}"}]) from None


def _json_body(model: type[BaseModel]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": model.model_json_schema()}}}}


def _add_probes(app: FastAPI, relay: Relay) -> None:
    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        try:
            return {"status": "ready", "model": (await relay.upstream.find()).model_id}
        except RequestRefused as error:
            raise RequestRefused(503, error.message) from None

    @app.get("/metrics")
    async def expose() -> Response:
        return Response(generate_latest(relay.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def main() -> None:
    """Serve until SIGTERM, as the environment configures. Raises UserError for a wrong configuration."""
    settings = RouterSettings.from_env(os.environ)
    store = open_store(settings.lake)
    run_server(lambda: create_app(settings, store), settings.host, settings.port, "router")


if __name__ == "__main__":
    exit_on_user_error(main)
