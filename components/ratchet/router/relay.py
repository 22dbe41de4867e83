"""Forward a chat to the pool, and store its answer in the lake before the end of it reaches the user."""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi.responses import Response, StreamingResponse

from ratchet.http_limits import CLIENT_LEFT, RequestRefused
from ratchet.http_service import error_body, printable
from ratchet.router.affinity import FORWARDED, MISDIRECTED, Peer
from ratchet.router.answers import Answer, Choice
from ratchet.router.apis import Api
from ratchet.router.chat_request import ChatRequest
from ratchet.router.chats import Chats
from ratchet.router.event_log import Event, EventLog, NotStored
from ratchet.router.event_stream import EventStream, PoolSaidError, Renamer
from ratchet.router.exchange import Exchange, interactions
from ratchet.router.feedback import VoteRequest
from ratchet.router.metrics import RouterMetrics
from ratchet.router.pool_client import PoolClient, PoolFailed, Reply, ServedModel
from ratchet.router.rate_limit import RateLimit
from ratchet.router.settings import BASE_NAME, RouterSettings
from ratchet.router.tokens import COMPLETION, Signer, Ticket
from ratchet.turns import ANONYMOUS

# Headers that are passed on: traces, and what clients tell servers of these APIs, or servers clients.
TO_POOL = ("traceparent", "tracestate", "x-request-id", "openai-beta", "anthropic-version", "anthropic-beta")
FROM_POOL = ("retry-after", "retry-after-ms", "x-should-retry", "openai-processing-ms", "openai-version")
LIMITS_FROM_POOL = "x-ratelimit-"
RETRIED_BY_CLIENT = "x-stainless-retry-count"  # OpenAI's and Anthropic's clients send it, and try again by themselves
ANONYMOUS_VOTERS = 10  # as many full buckets do the anonymous voters of a tenant share
NO_TICKET = "send the answer's x-feedback-token (authorization: Bearer TOKEN), or its id and your tenant's key"
RETRY_AFTER_S = 2  # for clients, while the lake does not take events

Result = TypeVar("Result")
logger = logging.getLogger(__name__)


class ClientLeft(RequestRefused):
    """The client went away before its answer came."""

    def __init__(self) -> None:
        super().__init__(CLIENT_LEFT, "the client left before its answer came")


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
        self._chats = Chats()
        self._recording: set[asyncio.Task[None]] = set()
        self._last_trouble = ""

    async def chat(
        self,
        api: Api,
        request: ChatRequest,
        body: dict[str, Any],
        tenant: str | None,
        headers: Mapping[str, str],
        client_left: Callable[[], Coroutine[Any, Any, None]],
        *,
        begun: Ticket | None = None,
        shows_arm: bool = False,
    ) -> Response:
        """Return the pool's answer once its interaction is durable; a stream's end waits for that.

        `tenant` None: requests are not authenticated. `client_left` returns when the client has gone: the pool then
        stops, and the interaction is recorded as abandoned. `begun`: of an earlier answer to the same person, by this
        adapter. `shows_arm`: headers name the adapter and the arm.
        """
        started = time.monotonic()
        ticket = self.new_ticket(request, tenant, begun)
        if begun:
            ticket = replace(ticket, assigned_at=begun.assigned_at)
        try:
            reply, content = await _unless(client_left(), self._answer(api, request, body, headers))
        except ClientLeft:
            self._leave(api, request, ticket, started)
            raise
        except PoolFailed as error:
            self._log_trouble(error.detail)
            raise
        self._last_trouble = ""
        self.metrics.fallbacks.labels(self.metrics.arm).inc(reply.is_fallback)
        if not reply.is_success:
            return self._pass_on(reply, content, shows_arm)
        if reply.is_fallback:
            ticket = replace(ticket, adapter_digest=BASE_NAME)
        exchange = Exchange(
            api=api,
            request=request,
            served=reply.served,
            is_fallback=reply.is_fallback,
            ticket=ticket,
            completion_id=self._signer.seal(ticket),
            started=started,
            is_kept=begun is not None,
        )
        shown = self._headers(reply, exchange, shows_arm)
        renamer = Renamer(self.settings.public_model, exchange.completion_id if api.names_answers else None)
        if _is_stream(request, reply):
            events = EventStream(api.reader(), renamer, hides_usage=api.asks_for_usage and not _asks_for_usage(body))
            return StreamingResponse(self._stream(exchange, reply, events), headers=shown)
        reader = api.reader()
        try:
            completion = json.loads(content)
            reader.feed(completion)
            answer = reader.answer()
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
            self._log_trouble(f"the pool's answer is none: {error!r} in {content[:200]!r}")
            raise RequestRefused(502, "the model pool's answer is no chat completion") from None
        await self._record(exchange, answer)
        return Response(renamer.rename(content, completion), headers=shown)

    async def pass_on(self, path: str, body: Any, headers: Mapping[str, str], shows_arm: bool = False) -> Response:
        """Return the pool's answer to a request of an API whose answers are not recorded."""
        if not isinstance(body, dict) or not isinstance(body.get("model"), str):
            raise RequestRefused(400, "model: you must name a model", param="model")
        self.check_model(body["model"])
        try:
            reply = await self.upstream.ask(path, body, _listed(headers, TO_POOL), RETRIED_BY_CLIENT in headers)
            if reply.is_success and _sends_events(reply):
                return StreamingResponse(self._renamed(reply), headers=self._headers(reply, None, shows_arm))
            return self._pass_on(reply, await reply.read(), shows_arm)
        except PoolFailed as error:
            self._log_trouble(error.detail)
            raise

    def _pass_on(self, reply: Reply, content: bytes, shows_arm: bool) -> Response:
        """Return what is not recorded: as it came, with the model's name as the client knows it."""
        hidden = content.replace(reply.served.model_id.encode(), self.settings.public_model.encode())
        return Response(hidden, headers=self._headers(reply, None, shows_arm), status_code=reply.response.status)

    async def _renamed(self, reply: Reply) -> AsyncIterator[bytes]:
        inner, public = reply.served.model_id.encode(), self.settings.public_model.encode()
        rest = b""
        async with aclosing(reply.chunks()) as chunks:
            async for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                yield b"".join(line.replace(inner, public) + b"\n" for line in lines)
        yield rest.replace(inner, public)

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
        begun = self.find_ticket(headers.get("x-feedback-token", ""))
        if begun is None and not is_forwarded:
            return None, None
        ours = self.new_ticket(request, tenant, begun)
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

    async def _answer(
        self, api: Api, request: ChatRequest, body: dict[str, Any], headers: Mapping[str, str]
    ) -> tuple[Reply, bytes]:
        """Ask the pool; return its reply, and the reply's content if it is no stream."""
        self.check_model(request.model)
        if self.log.is_full:
            raise self._not_stored()
        if request.stream and api.asks_for_usage:
            options = body.get("stream_options")
            options = options if isinstance(options, dict) else {}
            body = {**body, "stream_options": {**options, "include_usage": True}}
        reply = await self.upstream.ask(api.path, body, _listed(headers, TO_POOL), RETRIED_BY_CLIENT in headers)
        return reply, b"" if reply.is_success and _is_stream(request, reply) else await reply.read()

    def check_model(self, name: str) -> None:
        """Raise RequestRefused with 404 for any model but the one that the router serves."""
        public = self.settings.public_model
        if name != public:
            message = f"The model `{printable(name, 64)}` does not exist; it is `{public}`."
            raise RequestRefused(404, message, param="model", code="model_not_found")

    def _leave(self, api: Api, request: ChatRequest, ticket: Ticket, started: float) -> None:
        """Record that the client left before it was sent anything."""
        self.metrics.unfinished.labels(self.metrics.arm, "abandoned").inc()
        if served := self.upstream.known:
            exchange = Exchange(
                api=api,
                request=request,
                served=served,
                is_fallback=False,
                ticket=ticket,
                completion_id=self._signer.seal(ticket),
                started=started,
            )
            self._record_later(exchange, Answer(choices=(Choice(text="", finish_reason="abandoned"),)))

    def find_ticket(self, token: str) -> Ticket | None:
        """Return the ticket of an answer's token; None for anything else."""
        try:
            return self._signer.read(token)
        except ValueError:
            return None

    def ticket_of(self, vote: VoteRequest, tenant: str | None) -> Ticket:
        """Return the ticket of the completion that the vote names, for its `user` if it has one, else for who asked.

        Raises RequestRefused: 401 without an id, 404 for one that was not issued here, or to another tenant.
        """
        if vote.id is None:
            raise RequestRefused(401, NO_TICKET)
        try:
            ticket = self._signer.unseal(vote.id)
            if tenant not in (None, ticket.tenant):
                raise ValueError("no answer from here has this id")
        except ValueError as error:
            raise RequestRefused(404, f"id: {error}; given {printable(vote.id, 64)}", param="id") from None
        if not vote.user:
            return ticket
        return replace(ticket, subject_id=f"{tenant}/{vote.user}" if tenant else vote.user)

    def check_alike(self, vote: VoteRequest, ticket: Ticket) -> None:
        """Raise RequestRefused with 400 for a vote by token that also names another answer, or another person."""
        if vote.id is not None and self.ticket_of(vote, ticket.tenant).interaction_id != ticket.interaction_id:
            raise RequestRefused(400, "id: the token is of another answer; send one of the two", param="id")
        if vote.user is not None:
            message = "user: a token votes as whoever asked; leave it out, or send the id and the tenant's key"
            raise RequestRefused(400, message, param="user")

    async def vote(self, vote: VoteRequest, ticket: Ticket) -> str:
        """Store the vote; return its id in the lake."""
        wait_s = self._limit.wait_s(ticket.subject_id)
        if not wait_s and ANONYMOUS in ticket.subject_id:
            wait_s = self._anonymous_limit.wait_s(ticket.tenant)
        if wait_s:
            raise RequestRefused(429, "too many votes", retry_after_s=wait_s)
        try:
            if vote.kind == "preference" and isinstance(vote.value, str) and vote.value.startswith(COMPLETION):
                lost = self._signer.unseal(vote.value)
                if lost.tenant != ticket.tenant:
                    raise ValueError("no answer from here has this id")
                vote = vote.model_copy(update={"value": lost.interaction_id})
            event = vote.event(ticket, created_at=time.time())
        except ValueError as error:
            raise RequestRefused(400, str(error), param="value") from None
        await self._store(event)
        self.metrics.count_vote(vote)
        return event.feedback_id

    async def close(self) -> None:
        """Wait for the recordings in progress."""
        if self._recording:
            await asyncio.wait(self._recording)

    def new_ticket(self, request: ChatRequest, tenant: str | None, begun: Ticket | None = None) -> Ticket:
        """Return the ticket of the answer to come; `begun` is of an earlier one, as its token says."""
        interaction_id = secrets.token_hex(16)
        owner = tenant or request.tenant or "default"
        user = request.user
        if not user:  # one person for each chat, and no more: not everybody who is not named
            chat = request.conversation
            if not chat and begun and begun.tenant == owner and ANONYMOUS in begun.subject_id:
                chat = begun.subject_id.partition(ANONYMOUS)[2]
            user = f"{ANONYMOUS}{chat or self._chats.find(owner, request.messages) or interaction_id}"
        return Ticket(
            interaction_id=interaction_id,
            subject_id=f"{tenant}/{user}" if tenant else user,
            tenant=owner,
            adapter_digest=self.settings.adapter_digest,
            arm=self.settings.arm,
            assigned_at=time.time(),
        )

    async def _stream(self, exchange: Exchange, reply: Reply, events: EventStream) -> AsyncIterator[bytes]:
        """Yield the pool's events as they come, and the end only when the interaction is durable."""
        ending, status, is_first = "abandoned", CLIENT_LEFT, True
        try:
            async with aclosing(reply.chunks()) as chunks:
                async for chunk in chunks:
                    if is_first:
                        self.metrics.first_byte.labels(self.metrics.arm).observe(time.monotonic() - exchange.started)
                        is_first = False
                    if passed := events.feed(chunk):
                        yield passed
            end = events.ending()
            await self._record(exchange, events.reader.answer())
            status = 200
        except (RequestRefused, ValueError, PoolSaidError) as error:
            refusal = self._broken_off(error)
            ending, status = "broken_off", refusal.status
            body = error_body(refusal.status, refusal.message)
            if isinstance(error, PoolSaidError):
                body = self._told_by_pool(error, exchange.served)
            seen = events.unsent() if isinstance(error, ValueError | PoolSaidError) else b""
            yield seen + exchange.api.error_event(body)
        else:
            yield end
        finally:
            self.metrics.count_request(status)
            if not exchange.is_recorded:
                self.metrics.unfinished.labels(self.metrics.arm, ending).inc()
                if not is_first or ending == "abandoned":
                    self._record_later(exchange, events.reader.answer(ending))

    def _told_by_pool(self, said: PoolSaidError, served: ServedModel) -> dict[str, Any]:
        """Return the pool's error, with the model's name as the client knows it."""
        text = json.dumps({"error": said.error}).replace(served.model_id, self.settings.public_model)
        body: dict[str, Any] = json.loads(text)
        return body

    def _broken_off(self, error: RequestRefused | ValueError | PoolSaidError) -> RequestRefused:
        if isinstance(error, RequestRefused):
            if isinstance(error, PoolFailed):
                self._log_trouble(error.detail)
            return error
        self._log_trouble(f"the pool sent {error}")
        return RequestRefused(502, "the model pool broke off its answer")

    def _record_later(self, exchange: Exchange, part: Answer) -> None:
        """Record the part that the user saw, in a task of its own, since the client's is cancelled when it leaves."""
        task = asyncio.create_task(self._record_quietly(exchange, part))
        self._recording.add(task)
        task.add_done_callback(self._recording.discard)

    async def _record_quietly(self, exchange: Exchange, answer: Answer) -> None:
        try:
            await self._record(exchange, answer)
        except RequestRefused:
            return  # the client is gone; the metric counts it

    async def _record(self, exchange: Exchange, answer: Answer) -> None:
        """Store each choice as an interaction, and remember it as a turn of its chat."""
        exchange.is_recorded = True
        request, ticket = exchange.request, exchange.ticket
        events = interactions(exchange, answer, self.settings)
        if len(events) == 1:
            await self._store(events[0])
        else:
            await asyncio.gather(*map(self._store, events))
        if not request.user:
            first = ticket.subject_id.rpartition(ANONYMOUS)[2]
            for choice in answer.choices:
                self._chats.remember(ticket.tenant, request.messages, choice.text, first)
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

    def _headers(self, reply: Reply, exchange: Exchange | None, shows_arm: bool) -> dict[str, str]:
        """Return the response headers: content type and ids; for callers who may know it, what answered and how."""
        settings, got = self.settings, reply.response.headers
        headers = {"content-type": got.get("content-type", "application/json")}
        passed = {name.lower(): value for name, value in got.items() if value.isascii()}
        headers |= _listed(passed, FROM_POOL)
        headers |= {name: value for name, value in passed.items() if name.startswith(LIMITS_FROM_POOL)}
        if exchange:
            headers |= {
                "x-interaction-id": exchange.ticket.interaction_id,
                "x-request-id": exchange.completion_id,  # OpenAI's clients show it as `_request_id`
                "x-feedback-token": self._signer.sign(exchange.ticket),
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


def _sends_events(reply: Reply) -> bool:
    return reply.response.headers.get("content-type", "").startswith("text/event-stream")


def _is_stream(request: ChatRequest, reply: Reply) -> bool:
    """Return whether the answer is a stream: pools take more for `"stream": true` than the literal."""
    return request.stream or _sends_events(reply)


def _listed(headers: Mapping[str, str], names: tuple[str, ...]) -> dict[str, str]:
    return {name: headers[name] for name in names if name in headers}


def _asks_for_usage(body: Mapping[str, Any]) -> bool:
    options = body.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


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
