"""The model pool as one router sees it: one model, which is there or is not."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from ratchet.serving.server import Refused

CONNECT_TIMEOUT_S = 5.0
LIST_TIMEOUT_S = 2.0  # a readiness probe must not wait for longer


@dataclass(frozen=True)
class Served:
    """What the pool calls our model, and the base model under it."""

    model_id: str
    base_model: str


class Upstream:
    """A client of the pool for one model; `model_id` None is the pool's base model.

    Every method raises Refused, with 502 or 504, for what keeps the pool from answering.
    """

    def __init__(self, pool_url: str, model_id: str | None, timeout_s: float) -> None:
        self._pool_url, self._model_id = pool_url, model_id
        self._served: Served | None = None
        # The pool is a neighbour, never behind a proxy, and has a queue of its own for what it cannot answer yet.
        self._client = httpx.AsyncClient(
            base_url=pool_url,
            timeout=httpx.Timeout(timeout_s, connect=CONNECT_TIMEOUT_S),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=100),
            headers={"accept-encoding": "identity"},
            trust_env=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def find(self) -> Served:
        """Our model, as the pool lists it now."""
        with self._refusing():
            response = await self._client.get("/v1/models", timeout=LIST_TIMEOUT_S)
        cards = self._cards(response)
        base = next(name for name, parent in cards.items() if parent is None)
        model_id = self._model_id or base
        if model_id not in cards:
            raise Refused(502, f"the pool at {self._pool_url} does not serve {model_id}; it has {sorted(cards)}")
        self._served = Served(model_id, cards[model_id] or base)
        return self._served

    async def chat(self, body: dict[str, Any]) -> tuple[Served, httpx.Response]:
        """The response to a chat completion with our model's name in it, its body not yet read."""
        served = self._served or await self.find()
        request = self._client.build_request("POST", "/v1/chat/completions", json={**body, "model": served.model_id})
        with self._refusing():
            response = await self._client.send(request, stream=True)
        if response.status_code == 404:  # it was there when we asked: the pool restarted, or somebody unloaded it
            await response.aclose()
            raise Refused(502, f"the pool at {self._pool_url} no longer serves {served.model_id}")
        return served, response

    async def read(self, response: httpx.Response) -> bytes:
        with self._refusing():
            return await response.aread()

    def _cards(self, response: httpx.Response) -> dict[str, str | None]:
        """Each model's parent, by name; the base model has none."""
        try:
            cards = {card["id"]: card["parent"] for card in response.raise_for_status().json()["data"]}
        except (httpx.HTTPStatusError, ValueError, KeyError, TypeError) as error:
            raise Refused(502, f"the pool at {self._pool_url} lists no models: {error!r}") from None
        if None not in cards.values():
            raise Refused(502, f"the pool at {self._pool_url} lists no base model, only {sorted(cards)}")
        return cards

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except httpx.TimeoutException:
            raise Refused(504, f"the pool at {self._pool_url} did not answer in time") from None
        except httpx.TransportError as error:
            raise Refused(502, f"the pool at {self._pool_url} cannot be reached: {error}") from None
