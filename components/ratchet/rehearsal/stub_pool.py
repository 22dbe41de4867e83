"""A model pool without a model, for rehearsals: `python -m ratchet.rehearsal.stub_pool`.

It lists, loads and unloads adapters as vLLM does. `Manner` sets, per model, the share of answers that the simulated
users like, the delay, and the share of errors. A liked answer is short and complete, a disliked one long and cut off.
"""

import asyncio
import json
import random
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from ratchet.http_service import error_response, exit_on_user_error, run_server

BASE = "stub"
LIKED = "Yes, that is so."
DISLIKED = (
    "It depends on very many things, which one would have to look at one after the other before one could say and"
)


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How one model answers."""

    good: float = 0.8
    """Share of answers that users like."""
    delay_s: float = 1.0
    errors: float = 0.0


class Chat(BaseModel):
    model: str
    messages: list[dict[str, Any]]


class Load(BaseModel):
    lora_name: str
    lora_path: str = ""


def create_app(manners: dict[str, Manner], seed: int) -> FastAPI:
    """Return the pool's app; a model that `manners` does not name answers in the default manner."""
    app, rng = FastAPI(title="stub pool"), random.Random(seed)
    adapters: dict[str, str] = {}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        cards = [{"id": BASE, "object": "model", "parent": None, "root": BASE}]
        cards += [
            {"id": name, "object": "model", "parent": BASE, "root": path} for name, path in sorted(adapters.items())
        ]
        return {"object": "list", "data": cards}

    @app.post("/v1/load_lora_adapter")
    async def load(wanted: Load) -> JSONResponse:
        if wanted.lora_name in adapters:
            return error_response(400, f"{wanted.lora_name} is loaded already")
        adapters[wanted.lora_name] = wanted.lora_path
        return JSONResponse({})

    @app.post("/v1/unload_lora_adapter")
    async def unload(wanted: Load) -> JSONResponse:
        if wanted.lora_name not in adapters:
            return error_response(404, f"{wanted.lora_name} is not loaded")
        del adapters[wanted.lora_name]
        return JSONResponse({})

    @app.post("/v1/chat/completions")
    async def chat(asked: Chat) -> JSONResponse:
        if asked.model != BASE and asked.model not in adapters:
            return error_response(404, f"The model `{asked.model}` does not exist.")
        manner = manners.get(asked.model, Manner())
        await asyncio.sleep(manner.delay_s)
        if rng.random() < manner.errors:
            return error_response(500, "a simulated error of the stub pool")
        return JSONResponse(_answer(asked.model, LIKED if rng.random() < manner.good else DISLIKED))

    return app


def _answer(model: str, text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    words = len(text.split())
    return {
        "id": "chatcmpl-stub",
        "object": "chat.completion",
        "created": 0,
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": words, "total_tokens": 1 + words},
    }


def main(
    port: Annotated[int, typer.Option(help="port to bind")],
    manners: Annotated[str, typer.Option(help="JSON: by model, good, delay_s, errors")] = "{}",
    seed: int = 0,
) -> None:
    """Serve until SIGTERM or Ctrl-C."""
    known = {model: Manner(**manner) for model, manner in json.loads(manners).items()}
    exit_on_user_error(lambda: run_server(lambda: create_app(known, seed), "127.0.0.1", port, "stub pool"))


if __name__ == "__main__":
    typer.run(main)
