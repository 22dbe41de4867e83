"""What the tests of the router share: how to ask and vote, what the lake then holds, a pool that answers as told."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import Response

from ratchet.errors import UserError
from ratchet.events import Feedback, Interaction
from ratchet.ingest.landing import landed, lines
from ratchet.router.tokens import Signer, Ticket
from ratchet.store import LocalStore

Start = Callable[..., httpx.Client]
SECRET = "the secret of every router in these tests"
NOWHERE = "http://127.0.0.1:9"
SERVED = {"interaction_id": "i", "subject_id": "u1", "tenant": "t1", "adapter_digest": "d1", "arm": "canary"}
OPERATOR = {"x-operator-token": "any: only this machine can ask"}
LEFT = {"adapter_name": "left", "adapter_version": "1", "adapter_digest": "d1"}


class FullDisk(LocalStore):
    def create(self, key: str, data: bytes) -> None:
        raise UserError("no room")  # what is not tried again, for the sake of time


def interactions(lake: LocalStore) -> list[Interaction]:
    found = [line for key in landed(lake, "interaction") for _, line in lines(lake, key)]
    return [Interaction.model_validate_json(line) for line in found]


def votes(lake: LocalStore) -> list[Feedback]:
    return [Feedback.model_validate_json(line) for key in landed(lake, "feedback") for _, line in lines(lake, key)]


def body(**fields: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": "Why is the sky blue?"}]
    return {"model": "assistant", "messages": messages, "max_tokens": 8, "temperature": 0, **fields}


def ask(client: httpx.Client, **fields: Any) -> httpx.Response:
    return client.post("/v1/chat/completions", json=body(**fields))


def message(response: httpx.Response) -> str:
    return str(response.json()["error"]["message"])


def token(**served: str) -> dict[str, str]:
    """The headers of whoever was served this."""
    return {"authorization": f"Bearer {Signer([SECRET]).sign(Ticket(**{**SERVED, **served}))}"}


def like(router: httpx.Client, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return router.post("/v1/feedback", json={"kind": "thumb", "value": 1, **fields}, headers=headers)


def until(holds: Callable[[], bool], timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def stub(answer: Callable[[], Response], pause_s: float = 0) -> FastAPI:
    """A pool at the other end of the wire that answers as told."""
    app = FastAPI()

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        cards = [{"id": "base-model", "parent": None}, {"id": "left@v1", "parent": "base-model"}]
        return {"object": "list", "data": cards}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked.append((await request.json())["model"])
        await asyncio.sleep(pause_s)
        return answer()

    asked: list[str] = []
    app.state.asked = asked
    return app
