"""Keep a conversation on the arm that began it: the router that the route chose forwards a later turn to the other arm.

No router keeps sessions: the client sends back the token of an earlier answer to the same person (`x-feedback-token`).
Only the other arm's routers know whether they still serve that adapter, so they are asked: once a canary is rolled back
or promoted, its Service is empty or serves another adapter, and the conversation goes on where the route sent it.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import aiohttp
from fastapi.responses import Response, StreamingResponse

from ratchet.http_limits import RequestRefused
from ratchet.router.pool_client import CONNECT_TIMEOUT_S
from ratchet.router.settings import RouterSettings
from ratchet.router.tokens import Signer

FORWARDED = "x-ratchet-forwarded"  # a proof that another router sent it: to users the answer would tell arms apart
MISDIRECTED = 421
THERE = (
    "authorization", "content-type", "x-feedback-token", "x-operator-token", "traceparent", "tracestate",
    "x-request-id", "x-stainless-retry-count",
)  # fmt: skip
BACK = (b"content-type", b"content-length")  # and whatever begins with these:
BACK_PREFIXES = (b"x-", b"retry-after", b"openai-")


class Peer:
    """The routers of the other arm. Use as `async with`."""

    def __init__(self, settings: RouterSettings, signer: Signer) -> None:
        other = "canary" if settings.arm == "primary" else "primary"
        self._url, self._signer = settings.peer_url.format(arm=other), signer
        self._there = [*THERE, settings.user_jwt_header, *settings.names_in[0], *settings.names_in[1]]
        self._timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=settings.timeout_s)
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> "Peer":
        if self._url:
            session = aiohttp.ClientSession(
                self._url, timeout=self._timeout, auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
            )
            self._session = await self._stack.enter_async_context(session)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, body: bytes, headers: Mapping[str, str]) -> Response | None:
        """Return the other arm's answer; None if there is no such arm, or it serves another adapter by now."""
        if not self._url:
            return None
        passed = {name: headers[name] for name in self._there if name in headers} | {FORWARDED: self._signer.prove()}
        try:
            response = await self._session.post("/v1/chat/completions", data=body, headers=passed)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ConnectionTimeoutError):
                return None
            raise RequestRefused(504, "the answer did not come in time") from None
        except aiohttp.ClientError:
            return None
        if response.status == MISDIRECTED:
            response.close()
            return None
        # As it came, header by header: a forwarded answer that looked otherwise would tell the arms apart.
        is_whole = "content-length" in response.headers
        answer = Response(await _whole(response)) if is_whole else StreamingResponse(_parts(response))
        answer.status_code = response.status
        raw = [(name.lower(), value) for name, value in response.raw_headers]
        answer.raw_headers = [(name, value) for name, value in raw if name in BACK or name.startswith(BACK_PREFIXES)]
        return answer


async def _whole(response: aiohttp.ClientResponse) -> bytes:
    try:
        return await response.read()
    except (aiohttp.ClientError, TimeoutError):
        raise RequestRefused(502, "the model pool broke off its answer") from None


async def _parts(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for part in response.content.iter_any():
            yield part
    finally:
        response.close()
