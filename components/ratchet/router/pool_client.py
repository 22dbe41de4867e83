"""Call the model pool for one model, with retries and, if configured, the base model as a fallback."""

import json
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from ratchet.http_limits import RequestRefused
from ratchet.http_service import printable
from ratchet.router.settings import Fallback

CONNECT_TIMEOUT_S = 5.0
CHAT_PATH = "/v1/chat/completions"
LIST_TIMEOUT_S = 2.0  # a readiness probe must not wait longer
# The pool has not answered: it is full (503), dies or drains (vLLM: 500), or a proxy in front of it says so.
NOT_ANSWERED = (500, 502, 503, 504)
BUSY = 503
BUSY_RETRY_AFTER_S = 2.0  # where the pool does not say


@dataclass(frozen=True)
class ServedModel:
    """The pool's name of our model, and its base model."""

    model_id: str
    base_model: str


class PoolFailed(RequestRefused):
    """The pool did not answer. The message is for users; `detail`, for operators, names the pool and the model."""

    def __init__(self, status: int, message: str, detail: str, retry_after_s: float | None = None) -> None:
        super().__init__(status, message, retry_after_s)
        self.detail = detail


class NotAnswering(PoolFailed):
    """The pool has not started to answer, so a retry is safe."""


class PoolSaid(NotAnswering):
    """The pool, or a proxy in front of it, has said that it does not answer."""


@dataclass(frozen=True)
class Reply:
    """The pool's response with its body unread, and how it was obtained."""

    served: ServedModel
    response: aiohttp.ClientResponse
    attempts: int = 1
    is_fallback: bool = False

    @property
    def is_success(self) -> bool:
        return self.response.status < 300

    async def read(self) -> bytes:
        with _failing():
            return await self.response.read()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield the body as it arrives. Closing early closes the connection, which makes the pool stop."""
        try:
            with _failing():
                async for chunk in self.response.content.iter_any():
                    yield chunk
        finally:
            self.response.close()


class PoolClient:
    """A client of the pool for one model; `model_id` None is the pool's base model.

    Every method raises PoolFailed if the pool does not answer: 502, 503 where it is busy, or 504 where it is late. A
    pool that cannot be reached, is busy or fails before the first byte is retried `retries` times, each counted by
    `on_retry`; a late answer is not requested twice. After that, or if the pool has lost our model, `fallback` "base"
    asks the base model.
    """

    def __init__(
        self,
        pool_url: str,
        model_id: str | None,
        timeout_s: float,
        retries: int = 0,
        fallback: Fallback = "none",
        on_retry: Callable[[], None] = lambda: None,
    ) -> None:
        self._pool_url, self._model_id = pool_url, model_id
        parts = urlsplit(pool_url)
        self._place = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"  # without credentials
        self._retries, self._fallback, self._on_retry = retries, fallback, on_retry
        self._timeout = aiohttp.ClientTimeout(sock_connect=CONNECT_TIMEOUT_S, sock_read=timeout_s)
        self.known: ServedModel | None = None
        """Our model, as the pool listed it last; None before, and once the pool has lost it."""
        self._base: ServedModel | None = None

    async def __aenter__(self) -> "PoolClient":
        # The pool has its own queue of requests, so the client has no connection limit.
        self._session = aiohttp.ClientSession(
            self._pool_url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=self._timeout,
            headers={"accept-encoding": "identity", "content-type": "application/json"},
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    async def find(self) -> ServedModel:
        """Look our model up in the pool's list."""
        with _failing():
            async with self._session.get("/v1/models", timeout=aiohttp.ClientTimeout(total=LIST_TIMEOUT_S)) as response:
                cards = self._cards(response.status, await response.read())
        base = next(name for name, parent in cards.items() if parent is None)
        self._base = ServedModel(base, base)
        model_id = self._model_id or base
        if model_id not in cards:
            detail = f"the pool at {self._place} does not serve {model_id}; it has {sorted(cards)}"
            raise PoolFailed(502, "the model pool does not serve this model now", detail)
        self.known = ServedModel(model_id, cards[model_id] or base)
        return self.known

    async def ask(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str], is_retried_by_client: bool = False
    ) -> Reply:
        """Send a request with our model's name in it; return the response.

        A pool that answers with an error is not asked again for a client that will ask again by itself.
        """
        attempts = 0
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(lambda error: _is_worth_a_retry(error, is_retried_by_client)),
                stop=stop_after_attempt(1 + self._retries),
                wait=wait_random_exponential(0.1, max=2),
                before_sleep=lambda _: self._on_retry(),
                reraise=True,
            ):
                with attempt:
                    attempts += 1
                    served = self.known or await self.find()
                    reply = Reply(served, await self._ask(path, body, headers, served), attempts)
        except PoolFailed:
            if self._fallback == "none" or self._base is None or self._base == self.known:
                raise
            return Reply(self._base, await self._ask(path, body, headers, self._base), attempts, is_fallback=True)
        return reply

    async def _ask(
        self, path: str, body: dict[str, Any], headers: Mapping[str, str], served: ServedModel
    ) -> aiohttp.ClientResponse:
        content = json.dumps({**body, "model": served.model_id}, separators=(",", ":")).encode()
        with _failing():
            response = await self._session.post(path, data=content, headers=headers)
        if response.status in NOT_ANSWERED:
            with _failing():
                reason = printable((await response.read())[:200])
            detail = f"the pool at {self._place} answers {response.status}: {reason}"
            if response.status == BUSY:
                wait_s = _seconds(response.headers.get("retry-after", ""))
                raise PoolSaid(503, "the model pool is busy", detail, retry_after_s=wait_s)
            status = 504 if response.status == 504 else 502
            raise PoolSaid(status, "the model pool failed", detail)
        if response.status == 404:  # it was listed before: the pool restarted, or the model was unloaded
            self.known = None
            if path != CHAT_PATH:
                return response  # or the pool has no such API
            response.release()
            detail = f"the pool at {self._place} no longer serves {served.model_id}"
            raise PoolFailed(502, "the model pool does not serve this model now", detail)
        return response

    def _cards(self, status: int, content: bytes) -> dict[str, str | None]:
        """Return each model's parent by name; None for the base model."""
        public = "the model pool does not say what it serves"
        try:
            if status != 200:
                raise ValueError(f"status {status}")
            cards = {card["id"]: card["parent"] for card in json.loads(content)["data"]}
        except (ValueError, KeyError, TypeError) as error:
            raise PoolFailed(502, public, f"the pool at {self._place} lists no models: {error!r}") from None
        if None not in cards.values():
            raise PoolFailed(502, public, f"the pool at {self._place} lists no base model, only {sorted(cards)}")
        return cards


def _is_worth_a_retry(error: BaseException, is_retried_by_client: bool) -> bool:
    return isinstance(error, NotAnswering) and not (is_retried_by_client and isinstance(error, PoolSaid))


@contextmanager
def _failing() -> Iterator[None]:
    try:
        yield
    except aiohttp.ConnectionTimeoutError:
        raise NotAnswering(504, "the model pool cannot be reached in time", "no connection in time") from None
    except TimeoutError:
        raise PoolFailed(504, "the model pool did not answer in time", "no answer in time") from None
    except (aiohttp.ClientConnectionError, aiohttp.ServerDisconnectedError) as error:
        raise NotAnswering(502, "the model pool cannot be reached", f"the pool cannot be reached: {error}") from None
    except aiohttp.ClientError as error:
        raise PoolFailed(502, "the model pool broke off its answer", f"the pool broke off: {error!r}") from None


def _seconds(retry_after: str) -> float:
    return float(retry_after) if retry_after.isdecimal() else BUSY_RETRY_AFTER_S
