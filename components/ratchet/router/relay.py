"""Forward a chat to the pool, and store its answer in the lake before the end of it reaches the user."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi.responses import Response, StreamingResponse

from ratchet.events import Interaction
from ratchet.http_limits import CLIENT_LEFT, RequestRefused
from ratchet.http_service import error_body, printable
from ratchet.router.affinity import FORWARDED, MISDIRECTED, Peer
from ratchet.router.chat_request import ChatRequest
from ratchet.router.completion_parsing import (
    EventRenamer,
    ParsedCompletion,
    read_answer,
    read_part,
    read_stream,
    with_model,
)
from ratchet.router.event_log import Event, EventLog, NotStored
from ratchet.router.feedback import VoteRequest
from ratchet.router.metrics import RouterMetrics
from ratchet.router.pool_client import PoolClient, PoolFailed, Reply, ServedModel
from ratchet.router.rate_limit import RateLimit
from ratchet.router.settings import BASE_NAME, RouterSettings
from ratchet.router.tokens import Signer, Ticket

PARAMS = ("temperature", "top_p", "max_tokens", "max_completion_tokens", "seed")  # recorded with each interaction
ANONYMOUS = "anonymous/"  # begins the subject of a request that names no user
ANONYMOUS_VOTERS = 10  # as many full buckets do the anonymous voters of a tenant share
RETRY_AFTER_S = 2  # for clients, while the lake does not take events

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class ClientLeft(RequestRefused):
    """The client went away before its answer came."""

    def __init__(self) -> None:
        super().__init__(CLIENT_LEFT, "the client left before its answer came")


@dataclass(kw_only=True)
class Exchange:
    """One request, the pool's reply, and the ticket of the answer."""

    request: ChatRequest
    body: dict[str, Any]
    served: ServedModel
    is_fallback: bool
    ticket: Ticket
    started: float
    is_kept: bool = False
    """Whether an earlier turn chose the arm, not the route."""
    is_recorded: bool = False


class Relay:
    """Forwards the chats of one adapter to one pool, and records its answers and the votes on them."""

    def __init__(self, settings: RouterSettings, log: EventLog) -> None:
        self.settings, self.log = settings, log
        self.metrics = RouterMetrics(settings.arm)
        self.upstream = PoolClient(
            settings.pool_url,
            settings.pool_model,
            settings.timeout_s,
            settings.retries,
            settings.fallback,
            on_retry=self.metrics.retries.labels(settings.arm).inc,
        )
        self._signer = Signer.of(settings.secret)
        self.peer = Peer(settings, self._signer)
        self._limit = RateLimit(settings.votes_per_minute, settings.votes_per_minute, time.monotonic)
        anonymous = settings.votes_per_minute * ANONYMOUS_VOTERS
        self._anonymous_limit = RateLimit(anonymous, anonymous, time.monotonic)
        self._recording: set[asyncio.Task[None]] = set()
        self._last_trouble = ""

    async def chat(
        self,
        request: ChatRequest,
        body: dict[str, Any],
        tenant: str | None,
        client_left: Callable[[], Coroutine[Any, Any, None]],
        *,
        begun: Ticket | None = None,
        shows_arm: bool = False,
    ) -> Response:
        """Return the pool's answer once its interaction is durable; a stream's last chunk waits for that.

        `tenant` None: requests are not authenticated. `client_left` returns when the client has gone: the pool then
        stops, and the interaction is recorded as abandoned. `begun`: of an earlier answer to the same person, by this
        adapter. `shows_arm`: headers name the adapter and the arm.
        """
        started = time.monotonic()
        ticket = self.new_ticket(request, tenant)
        if begun:
            ticket = replace(ticket, assigned_at=begun.assigned_at)
        try:
            reply, content = await _unless(client_left(), self._answer(request, body))
        except ClientLeft:
            self._leave(request, body, ticket, started)
            raise
        except PoolFailed as error:
            self._log_trouble(error.detail)
            raise
        self._last_trouble = ""
        self.metrics.fallbacks.labels(self.metrics.arm).inc(reply.is_fallback)
        if not reply.is_success:
            hidden = content.replace(reply.served.model_id.encode(), self.settings.public_model.encode())
            return Response(hidden, headers=self._headers(reply, None, shows_arm), status_code=reply.response.status)
        if reply.is_fallback:
            ticket = replace(ticket, adapter_digest=BASE_NAME)
        exchange = Exchange(
            request=request,
            body=body,
            served=reply.served,
            is_fallback=reply.is_fallback,
            ticket=ticket,
            started=started,
            is_kept=begun is not None,
        )
        headers = self._headers(reply, ticket, shows_arm)
        if request.stream:
            return StreamingResponse(self._stream(exchange, reply), headers=headers)
        try:
            answer = read_answer(content)
        except ValueError as error:
            self._log_trouble(f"the pool's answer is {error}")
            raise RequestRefused(502, "the model pool's answer is no chat completion") from None
        await self._record(exchange, answer)
        return Response(with_model(content, self.settings.public_model), headers=headers)

    async def keep_on_its_arm(
        self,
        request: ChatRequest,
        tenant: str | None,
        body: bytes,
        headers: Mapping[str, str],
        client_left: Callable[[], Coroutine[Any, Any, None]],
    ) -> tuple[Ticket | None, Response | None]:
        """Return the ticket of the conversation's earlier answer if its adapter is ours, or the other arm's answer.

        Neither without an earlier answer to the same person, or if the other arm does not serve its adapter any more.
        Raises RequestRefused with 421 for a request of the other arm's routers that is not for our adapter.
        """
        is_forwarded = FORWARDED in headers and self._signer.is_proof(headers[FORWARDED])
        begun = self._earlier(headers)
        if begun is None and not is_forwarded:
            return None, None
        ours = self.new_ticket(request, tenant)
        if begun and (begun.tenant, begun.subject_id) == (ours.tenant, ours.subject_id):
            if begun.adapter_digest == ours.adapter_digest:
                return begun, None
            if begun.arm != ours.arm and not is_forwarded:
                answer = await _unless(client_left(), self.peer.ask(body, headers))
                self.metrics.forwarded.labels(self.metrics.arm).inc(answer is not None)
                return None, answer
        if is_forwarded:
            raise RequestRefused(MISDIRECTED, "this adapter is not served here")
        return None, None

    def _earlier(self, headers: Mapping[str, str]) -> Ticket | None:
        try:
            return self._signer.read(headers["x-feedback-token"])
        except (KeyError, ValueError):
            return None

    async def _answer(self, request: ChatRequest, body: dict[str, Any]) -> tuple[Reply, bytes]:
        """Ask the pool; return its reply, and the reply's content if it is no stream."""
        self.check_model(request.model)
        if self.log.is_full:
            raise self._not_stored()
        reply = await self.upstream.chat(request.as_recorded(body))
        return reply, b"" if request.stream and reply.is_success else await reply.read()

    def check_model(self, name: str) -> None:
        """Raise RequestRefused with 404 for any model but the one that the router serves."""
        public = self.settings.public_model
        if name != public:
            raise RequestRefused(404, f"The model `{printable(name, 64)}` does not exist; it is `{public}`.")

    def _leave(self, request: ChatRequest, body: dict[str, Any], ticket: Ticket, started: float) -> None:
        """Record that the client left before it was sent anything."""
        self.metrics.unfinished.labels(self.metrics.arm, "abandoned").inc()
        if served := self.upstream.known:
            exchange = Exchange(
                request=request, body=body, served=served, is_fallback=False, ticket=ticket, started=started
            )
            self._record_later(exchange, ParsedCompletion("", "abandoned", 0, 0))

    def ticket(self, token: str) -> Ticket:
        """Return the ticket of a vote's token. Raises RequestRefused for a token that was not issued here."""
        try:
            return self._signer.read(token)
        except ValueError:
            raise RequestRefused(401, "send the answer's x-feedback-token: authorization: Bearer TOKEN") from None

    async def vote(self, vote: VoteRequest, ticket: Ticket) -> str:
        """Store the vote; return its id in the lake."""
        wait_s = self._limit.wait_s(ticket.subject_id)
        if not wait_s and ANONYMOUS in ticket.subject_id:
            wait_s = self._anonymous_limit.wait_s(ticket.tenant)
        if wait_s:
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

    def new_ticket(self, request: ChatRequest, tenant: str | None) -> Ticket:
        """Return the ticket of the answer to come."""
        interaction_id = secrets.token_hex(16)
        # Whoever is not named is one person for a conversation, and no more: not everybody who is not named.
        user = request.asked_by or f"{ANONYMOUS}{request.metadata.conversation_id or interaction_id}"
        return Ticket(
            interaction_id=interaction_id,
            subject_id=f"{tenant}/{user}" if tenant else user,
            tenant=tenant or request.metadata.tenant or "default",
            adapter_digest=self.settings.adapter_digest,
            arm=self.settings.arm,
            assigned_at=time.time(),
        )

    async def _stream(self, exchange: Exchange, reply: Reply) -> AsyncIterator[bytes]:
        """Yield the pool's events, the last of them only when the interaction is durable."""
        seen: list[bytes] = []
        renamer, held = EventRenamer(self.settings.public_model), b""
        ending, status = "abandoned", CLIENT_LEFT
        try:
            async with aclosing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    if held:
                        yield held
                    if not seen:
                        self.metrics.first_byte.labels(self.metrics.arm).observe(time.monotonic() - exchange.started)
                    seen.append(chunk)
                    held = renamer.feed(chunk)
            await self._record(exchange, read_stream(b"".join(seen)))
            status = 200
        except (RequestRefused, ValueError) as error:
            refusal = self._broken_off(error)
            ending, status = "broken_off", refusal.status
            yield b"data: " + json.dumps(error_body(refusal.status, refusal.message)).encode() + b"\n\n"
        else:
            yield held + renamer.rest()
        finally:
            self.metrics.count_request(status)
            if not exchange.is_recorded:
                self.metrics.unfinished.labels(self.metrics.arm, ending).inc()
                if len(seen) > 1:
                    self._record_later(exchange, read_part(b"".join(seen[:-1]), ending))

    def _broken_off(self, error: RequestRefused | ValueError) -> RequestRefused:
        if isinstance(error, PoolFailed):
            self._log_trouble(error.detail)
        elif isinstance(error, ValueError):
            self._log_trouble(f"the pool sent {error}")
            return RequestRefused(502, "the model pool broke off its answer")
        return error

    def _record_later(self, exchange: Exchange, part: ParsedCompletion) -> None:
        """Record the part that the user saw, in a task of its own, since the client's is cancelled when it leaves."""
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
        is_fallback = exchange.is_fallback
        latency_s = time.monotonic() - exchange.started
        kept: dict[str, Any] = {"assigned_at": ticket.assigned_at} if exchange.is_kept else {}
        await self._store(
            Interaction(
                interaction_id=ticket.interaction_id,
                conversation_id=request.metadata.conversation_id or ticket.interaction_id,
                subject_id=ticket.subject_id,
                tenant=ticket.tenant,
                messages=request.messages,
                response=answer.text,
                base_model=exchange.served.base_model,
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
                **kept,
            )
        )
        self.metrics.latency.labels(self.metrics.arm).observe(time.monotonic() - exchange.started)

    async def _store(self, event: Event) -> None:
        try:
            await self.log.append(event)
        except NotStored:  # the event log has logged why
            raise self._not_stored() from None

    def _not_stored(self) -> RequestRefused:
        self.metrics.not_stored.labels(self.metrics.arm).inc()
        return RequestRefused(503, "not stored, try again", retry_after_s=RETRY_AFTER_S)

    def _log_trouble(self, detail: str) -> None:
        """Log why the pool did not answer, once while it stays the same."""
        if detail != self._last_trouble:
            logger.warning("%s", printable(detail))
        self._last_trouble = detail

    def _headers(self, reply: Reply, ticket: Ticket | None, shows_arm: bool) -> dict[str, str]:
        """Return the response headers: content type and ids; for callers who may know it, what answered and how."""
        settings, got = self.settings, reply.response.headers
        headers = {"content-type": got.get("content-type", "application/json")}
        if "retry-after" in got:
            headers["retry-after"] = got["retry-after"]
        if ticket:
            # OpenAI's clients show `x-request-id` as `_request_id`: the one name of an answer that most of them have.
            headers |= {
                "x-interaction-id": ticket.interaction_id,
                "x-request-id": ticket.interaction_id,
                "x-feedback-token": self._signer.sign(ticket),
            }
        if shows_arm:
            headers |= {
                "x-adapter-name": quote(BASE_NAME if reply.is_fallback else settings.adapter_name),
                "x-adapter-version": "0" if reply.is_fallback else settings.adapter_version,
                "x-adapter-digest": BASE_NAME if reply.is_fallback else settings.adapter_digest,
                "x-arm": settings.arm,
                "x-upstream-attempts": str(reply.attempts),
            }
            if reply.is_fallback:
                headers["x-fallback"] = BASE_NAME
        return headers


async def _unless(client_left: Coroutine[Any, Any, None], work: Coroutine[Any, Any, Result]) -> Result:
    """Return the result of `work`; cancel it and raise ClientLeft if the client leaves first."""
    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(client_left)
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
