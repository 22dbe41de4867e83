"""Forward a chat to the pool, and store its answer in the lake before the end of it reaches the user."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Literal

from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, Field

from ratchet.events import Interaction, Message
from ratchet.http_service import RequestRefused, error_body
from ratchet.router.completion_parsing import ParsedCompletion, read_answer, read_part, read_stream
from ratchet.router.event_log import Event, EventLog, NotStored
from ratchet.router.feedback import Id, VoteRequest
from ratchet.router.metrics import RouterMetrics
from ratchet.router.pool_client import PoolClient, Reply
from ratchet.router.rate_limit import RateLimit
from ratchet.router.settings import BASE_NAME, RouterSettings
from ratchet.router.tokens import Signer, Ticket

PARAMS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed")  # recorded with each interaction
RETRY_AFTER_S = 2  # for clients, while the lake does not take events


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
    """One request, the pool's reply, and the ticket of the answer."""

    request: ChatRequest
    body: dict[str, Any]
    reply: Reply
    ticket: Ticket
    started: float
    is_recorded: bool = False


class Relay:
    """Forwards the chats of one adapter to one pool, and records its answers and the votes on them."""

    def __init__(self, settings: RouterSettings, log: EventLog, upstream: PoolClient) -> None:
        self.settings, self.log, self.upstream = settings, log, upstream
        self.metrics = RouterMetrics(settings.arm)
        self._signer = Signer.of(settings.secret)
        self._limit = RateLimit(settings.votes_per_minute, settings.votes_per_minute, time.monotonic)
        self._recording: set[asyncio.Task[None]] = set()

    async def chat(self, request: ChatRequest, body: dict[str, Any], tenant: str | None) -> Response:
        """Return the pool's answer unchanged once its interaction is durable; a stream's last chunk waits for that.

        `tenant` None: requests are not authenticated.
        """
        if request.model != self.settings.public_model:
            raise RequestRefused(
                404, f"The model `{request.model}` does not exist; it is `{self.settings.public_model}`."
            )
        if self.log.is_full:
            raise self._not_stored("too many events are waiting for the lake")
        started = time.monotonic()
        reply = await self.upstream.chat(body)
        self.metrics.retries.labels(self.metrics.arm).inc(reply.attempts - 1)
        self.metrics.fallbacks.labels(self.metrics.arm).inc(reply.is_fallback)
        if not reply.is_success:
            return Response(await reply.read(), headers=self._headers(reply, None), status_code=reply.response.status)
        exchange = Exchange(
            request=request, body=body, reply=reply, ticket=self._ticket(request, reply, tenant), started=started
        )
        headers = self._headers(reply, exchange.ticket)
        if request.stream:
            return StreamingResponse(self._stream(exchange), headers=headers)
        content = await reply.read()
        try:
            answer = read_answer(content)
        except ValueError as error:
            raise RequestRefused(502, f"the pool's answer is {error}") from None
        await self._record(exchange, answer)
        return Response(content, headers=headers)

    async def vote(self, vote: VoteRequest, token: str) -> str:
        """Store the vote; return its id in the lake."""
        try:
            ticket = self._signer.read(token)
        except ValueError:
            raise RequestRefused(401, "send the answer's x-feedback-token: authorization: Bearer TOKEN") from None
        if wait_s := self._limit.wait_s(ticket.subject_id):
            raise RequestRefused(429, "too many votes", retry_after_s=wait_s)
        try:
            event = vote.event(ticket, created_at=time.time())
        except ValueError as error:
            raise RequestRefused(422, str(error)) from None
        await self._store(event)
        self.metrics.count_vote(vote)
        return event.feedback_id

    async def close(self) -> None:
        """Wait for the recordings in progress."""
        if self._recording:
            await asyncio.wait(self._recording)

    def _ticket(self, request: ChatRequest, reply: Reply, tenant: str | None) -> Ticket:
        return Ticket(
            interaction_id=secrets.token_hex(16),
            subject_id=f"{tenant}/{request.user}" if tenant else request.user,
            tenant=tenant or request.metadata.tenant,
            adapter_digest=BASE_NAME if reply.is_fallback else self.settings.adapter_digest,
            arm=self.settings.arm,
        )

    async def _stream(self, exchange: Exchange) -> AsyncIterator[bytes]:
        """Yield the pool's bytes, the last chunk only when the interaction is durable."""
        seen: list[bytes] = []
        ending = "abandoned"
        try:
            async with aclosing(exchange.reply.chunks()) as chunks:
                async for chunk in chunks:
                    if seen:
                        yield seen[-1]
                    else:
                        self.metrics.first_byte.labels(self.metrics.arm).observe(time.monotonic() - exchange.started)
                    seen.append(chunk)
            await self._record(exchange, read_stream(b"".join(seen)))
        except (RequestRefused, ValueError) as error:
            ending = "broken_off"
            yield b"data: " + json.dumps(error_body(502, str(error))).encode() + b"\n\n"
        else:
            yield seen[-1]
        finally:
            if not exchange.is_recorded and len(seen) > 1:
                # Record the part that the user saw, in a new task, since this one may be cancelled.
                part = read_part(b"".join(seen[:-1]), ending)
                self.metrics.unfinished.labels(self.metrics.arm, part.finish_reason).inc()
                task = asyncio.create_task(self._record_quietly(exchange, part))
                self._recording.add(task)
                task.add_done_callback(self._recording.discard)

    async def _record_quietly(self, exchange: Exchange, answer: ParsedCompletion) -> None:
        try:
            await self._record(exchange, answer)
        except RequestRefused:
            return  # the client is gone; the metric counts it

    async def _record(self, exchange: Exchange, answer: ParsedCompletion) -> None:
        exchange.is_recorded = True
        request, ticket, settings = exchange.request, exchange.ticket, self.settings
        is_fallback = exchange.reply.is_fallback
        latency_s = time.monotonic() - exchange.started
        await self._store(
            Interaction(
                interaction_id=ticket.interaction_id,
                conversation_id=request.metadata.conversation_id or ticket.interaction_id,
                subject_id=ticket.subject_id,
                tenant=ticket.tenant,
                messages=request.messages,
                response=answer.text,
                base_model=exchange.reply.served.base_model,
                adapter_name=BASE_NAME if is_fallback else settings.adapter_name,
                adapter_version="0" if is_fallback else settings.adapter_version,
                adapter_digest=ticket.adapter_digest,
                arm=ticket.arm,
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
        except NotStored as error:
            raise self._not_stored(str(error)) from None

    def _not_stored(self, why: str) -> RequestRefused:
        self.metrics.not_stored.labels(self.metrics.arm).inc()
        return RequestRefused(503, f"not stored, try again: {why}", retry_after_s=RETRY_AFTER_S)

    def _headers(self, reply: Reply, ticket: Ticket | None) -> dict[str, str]:
        """Return the response headers: content type, the adapter that answered, ids, retries and fallback."""
        settings, got = self.settings, reply.response.headers
        headers = {
            "content-type": got.get("content-type", "application/json"),
            "x-adapter-name": BASE_NAME if reply.is_fallback else settings.adapter_name,
            "x-adapter-version": "0" if reply.is_fallback else settings.adapter_version,
            "x-adapter-digest": BASE_NAME if reply.is_fallback else settings.adapter_digest,
            "x-arm": settings.arm,
        }
        if ticket:
            headers |= {"x-interaction-id": ticket.interaction_id, "x-feedback-token": self._signer.sign(ticket)}
        if reply.attempts > 1:
            headers["x-upstream-attempts"] = str(reply.attempts)
        if reply.is_fallback:
            headers["x-fallback"] = BASE_NAME
        if "retry-after" in got:
            headers["retry-after"] = got["retry-after"]
        return headers
