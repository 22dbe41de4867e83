"""The thin router in front of the model pool: one adapter, every answer and every vote on record.

`python -m ratchet.serving.router`, set up by RATCHET_* variables. It is what Flagger shifts traffic between, so it
starts within a second or two and imports nothing that touches a model.
"""

import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, Field

from ratchet.events import Interaction, Message
from ratchet.serving.event_log import Event, EventLog, NotStored
from ratchet.serving.feedback import Id, Vote
from ratchet.serving.router_settings import RouterSettings
from ratchet.serving.server import Refused, answer_errors, exit_on_user_error, run_server
from ratchet.serving.transcript import Answer, read_answer, read_stream
from ratchet.serving.upstream import Upstream
from ratchet.store import Store, open_store

PARAMS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed")  # what is recorded of a request


class Metadata(BaseModel):
    conversation_id: Id | None = None
    tenant: Id = "default"


class ChatRequest(BaseModel):
    """The part of a chat completion request that the router reads; the pool gets all of it."""

    model: str
    messages: list[Message] = Field(min_length=1)
    n: Literal[1] | None = Field(None, description="one answer is one interaction")
    stream: bool = False
    user: Id = "anonymous"
    metadata: Metadata = Metadata()


@dataclass(kw_only=True)
class Exchange:
    """One request on its way to an answer."""

    request: ChatRequest
    body: dict[str, Any]
    base_model: str
    interaction_id: str = field(default_factory=lambda: secrets.token_hex(16))
    started: float = field(default_factory=time.monotonic)


class Metrics:
    """By arm. Votes count where they arrive, retries too; the lake knows which arm each one judges."""

    def __init__(self, arm: str) -> None:
        self.registry, self.arm = CollectorRegistry(), arm
        self.requests = Counter("ratchet_requests", "Chat requests", ("arm", "status"), registry=self.registry)
        self.latency = Histogram(
            "ratchet_request_latency_seconds", "From request to recorded answer", ("arm",), registry=self.registry,
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
        )  # fmt: skip
        self.votes = Counter("ratchet_votes", "Feedback accepted", ("arm", "kind", "value"), registry=self.registry)

    def count_vote(self, vote: Vote) -> None:
        value = str(vote.value) if vote.kind in ("thumb", "rating") else ""  # the others have too many values
        self.votes.labels(self.arm, vote.kind, value).inc()


class Router:
    """One adapter, in front of one pool."""

    def __init__(self, settings: RouterSettings, log: EventLog) -> None:
        self.settings, self.log = settings, log
        self.upstream = Upstream(settings.pool_url, settings.pool_model, settings.timeout_s)
        self.metrics = Metrics(settings.arm)

    async def chat(self, request: ChatRequest, body: dict[str, Any]) -> Response:
        """The pool's answer as it is, after its interaction is durable; a stream's last bytes wait for that."""
        if request.model != self.settings.public_model:
            raise Refused(404, f"The model `{request.model}` does not exist; it is `{self.settings.public_model}`.")
        started = time.monotonic()
        served, response = await self.upstream.chat(body)
        exchange = Exchange(request=request, body=body, base_model=served.base_model, started=started)
        if request.stream and response.is_success:
            return self._reply(StreamingResponse(self._stream(exchange, response)), response, exchange)
        content = await self.upstream.read(response)
        if not response.is_success:
            return self._reply(Response(content), response, None)
        try:
            answer = read_answer(content)
        except ValueError as error:
            raise Refused(502, f"the pool's answer is {error}") from None
        await self._record(exchange, answer)
        return self._reply(Response(content), response, exchange)

    async def vote(self, vote: Vote) -> str:
        event = vote.event(created_at=time.time())
        await self._store(event)
        self.metrics.count_vote(vote)
        return event.feedback_id

    async def _stream(self, exchange: Exchange, response: httpx.Response) -> AsyncIterator[bytes]:
        seen: list[bytes] = []
        try:
            async for chunk in response.aiter_raw():
                if seen:
                    yield seen[-1]
                seen.append(chunk)
        finally:
            await response.aclose()
        await self._record(exchange, read_stream(b"".join(seen)))
        yield seen[-1]

    async def _record(self, exchange: Exchange, answer: Answer) -> None:
        request, settings = exchange.request, self.settings
        latency_s = time.monotonic() - exchange.started
        await self._store(
            Interaction(
                interaction_id=exchange.interaction_id,
                conversation_id=request.metadata.conversation_id or exchange.interaction_id,
                subject_id=request.user,
                tenant=request.metadata.tenant,
                messages=request.messages,
                response=answer.text,
                base_model=exchange.base_model,
                adapter_name=settings.adapter_name,
                adapter_version=settings.adapter_version,
                adapter_digest=settings.adapter_digest,
                arm=settings.arm,
                params={name: exchange.body[name] for name in PARAMS if name in exchange.body},
                prompt_tokens=answer.prompt_tokens,
                completion_tokens=answer.completion_tokens,
                latency_ms=round(latency_s * 1000, 1),
                finish_reason=answer.finish_reason,
                served_at=time.time(),
                consent_training=settings.consent_training,
            )
        )
        self.metrics.latency.labels(self.metrics.arm).observe(time.monotonic() - exchange.started)

    async def _store(self, event: Event) -> None:
        try:
            await self.log.append(event)
        except NotStored:
            raise Refused(503, "not stored, try again") from None

    def _reply(self, reply: Response, response: httpx.Response, exchange: Exchange | None) -> Response:
        """The pool's status and type, and who answered."""
        settings = self.settings
        reply.status_code = response.status_code
        reply.headers["content-type"] = response.headers.get("content-type", "application/json")
        reply.headers["x-adapter-name"] = settings.adapter_name
        reply.headers["x-adapter-version"] = settings.adapter_version
        reply.headers["x-adapter-digest"] = settings.adapter_digest
        reply.headers["x-arm"] = settings.arm
        if exchange:
            reply.headers["x-interaction-id"] = exchange.interaction_id
        return reply


def create_app(settings: RouterSettings, store: Store) -> FastAPI:
    """The router as an ASGI app; its events go to `store`."""
    # Pods of one Deployment differ by host, processes of one machine by the rest.
    log = EventLog(store, f"{socket.gethostname()}-{secrets.token_hex(4)}")
    router = Router(settings, log)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with log:
            yield
        await router.upstream.close()

    app = FastAPI(title="Ratchet router", lifespan=lifespan)
    answer_errors(app, invalid_status=422)
    _add_probes(app, router)

    @app.post("/v1/chat/completions")
    async def chat(chat_request: ChatRequest, request: Request) -> Response:
        status = 500
        try:
            response = await router.chat(chat_request, await request.json())
            status = response.status_code
        except Refused as error:
            status = error.status
            raise
        finally:
            router.metrics.requests.labels(settings.arm, status).inc()
        return response

    @app.post("/v1/feedback")
    async def feedback(vote: Vote) -> dict[str, str]:
        return {"feedback_id": await router.vote(vote)}

    return app


def _add_probes(app: FastAPI, router: Router) -> None:
    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> dict[str, str]:
        try:
            return {"status": "ready", "model": (await router.upstream.find()).model_id}
        except Refused as error:
            raise Refused(503, error.message) from None

    @app.get("/metrics")
    async def expose() -> Response:
        return Response(generate_latest(router.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def main() -> None:
    """Serve what the environment says, until SIGTERM. Raises UserError where that cannot be."""
    settings = RouterSettings.from_env(os.environ)
    store = open_store(settings.lake)
    run_server(lambda: create_app(settings, store), settings.host, settings.port, "router")


if __name__ == "__main__":
    exit_on_user_error(main)
