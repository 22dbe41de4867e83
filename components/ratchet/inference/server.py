"""Serve one base model and any number of LoRA adapters on a CPU, with the part of vLLM's API that we use.

On a cluster vLLM is used in its place.
"""

import asyncio
import os
import secrets
import time
import warnings
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.http_limits import Limits, RequestRefused
from ratchet.http_service import new_service, run_server
from ratchet.inference.batching import GenerationRow, stop_tokens
from ratchet.inference.engine import MAX_CELLS, Engine
from ratchet.inference.metrics import EngineMetrics
from ratchet.inference.openai_api import ChatRequest, Stream, completion

LIMITS = Limits(body_bytes=4 << 20)


class LoadRequest(BaseModel):
    lora_name: str = Field(min_length=1)
    lora_path: str = Field(min_length=1)
    load_inplace: Literal[False] = Field(False, description="other weights under a name in use would deceive the gate")


class UnloadRequest(BaseModel):
    lora_name: str


class Pool:
    """The loaded models by name, and the conversion of chats to rows and of rows to text."""

    def __init__(self, config: Config) -> None:
        self.base = config.base_model.model
        self.started_at = int(time.time())
        # In a thread that ends: OpenMP keeps helper threads for each thread that ever computed. With more of them than
        # cores it lets them sleep between operations, and every operation waits for one to wake up.
        with ThreadPoolExecutor(1) as loader:
            model, self.tokenizer = loader.submit(load_base, config.base_model).result()
        self.context = min(model.config.max_position_embeddings, MAX_CELLS)
        self.engine = Engine(model, stop_tokens(model, self.tokenizer))
        self.slots: dict[str, str | None] = {self.base: None}
        self.folders: dict[str, str] = {}
        self._loading = asyncio.Lock()

    def row(self, request: ChatRequest) -> GenerationRow:
        """Return the row for a request. Raises RequestRefused if it cannot be served."""
        if request.model not in self.slots:
            raise RequestRefused(404, f"The model `{request.model}` does not exist; there are {sorted(self.slots)}.")
        prompt = self.tokenizer.apply_chat_template(
            [message.for_template() for message in request.messages], add_generation_prompt=True
        )["input_ids"]
        if len(prompt) + request.max_tokens > self.context:
            raise RequestRefused(
                400,
                f"The model holds {self.context} tokens; the prompt has {len(prompt)} and max_tokens is "
                f"{request.max_tokens}.",
            )
        return GenerationRow(
            prompt=prompt,
            max_tokens=request.max_tokens,
            adapter=self.slots[request.model],
            temperature=request.temperature,
            seed=secrets.randbits(63) if request.seed is None else request.seed,
        )

    def text(self, row: GenerationRow) -> str:
        return str(self.tokenizer.decode(row.tokens, skip_special_tokens=True))

    async def texts(self, row: GenerationRow) -> AsyncGenerator[str, None]:
        """Yield the answer piece by piece as it is generated. Closing the generator early stops the generation."""
        stepped, loop, sent = asyncio.Event(), asyncio.get_running_loop(), ""
        answer = asyncio.wrap_future(self.engine.generate(row, on_token=lambda: loop.call_soon_threadsafe(stepped.set)))
        answer.add_done_callback(lambda _: stepped.set())
        try:
            while not answer.done():
                await stepped.wait()
                stepped.clear()
                text = self.text(row)
                # A character of several tokens is incomplete until the last of them.
                if not text.endswith("\ufffd") and text.startswith(sent) and text != sent:
                    yield text[len(sent) :]
                    sent = text
            await answer
        finally:
            if not answer.done():
                self.engine.abort(row)
        if rest := self.text(row)[len(sent) :]:
            yield rest

    async def load(self, name: str, path: str) -> None:
        async with self._loading:  # of two loads of one name, the second must see the first
            if name in self.slots:
                raise RequestRefused(400, f"The lora adapter '{name}' has already been loaded.")
            try:
                slot: str = await asyncio.wrap_future(self.engine.load(Path(path)))
            except UserError as error:
                raise RequestRefused(400, str(error)) from None
            self.slots[name], self.folders[name] = slot, path

    async def unload(self, name: str) -> None:
        async with self._loading:
            if name not in self.folders:
                raise RequestRefused(404, f"The lora adapter '{name}' cannot be found.")
            del self.folders[name]
            if slot := self.slots.pop(name):
                self.engine.retire(slot)

    @property
    def adapter_names(self) -> dict[str, str]:
        """The names of the loaded adapters by slot."""
        return {slot: name for name, slot in self.slots.items() if slot}

    def cards(self) -> Iterator[dict[str, Any]]:
        for name in self.slots:
            is_base = name == self.base
            yield {
                "id": name,
                "object": "model",
                "created": self.started_at,
                "owned_by": "ratchet",
                "root": self.base if is_base else self.folders.get(name),
                "parent": None if is_base else self.base,
            }


def create_app(config: Config) -> FastAPI:
    """Load the base model and return the ASGI app. Raises UserError if there is no such model."""
    pool = Pool(config)
    metrics = EngineMetrics(pool.base, pool.engine, lambda: pool.adapter_names)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(pool.engine.close)

    app = new_service("Ratchet model server", limits=LIMITS, lifespan=lifespan)

    _add_probes(app, pool, metrics)

    @app.post("/v1/load_lora_adapter")
    async def load(request: LoadRequest) -> Response:
        await pool.load(request.lora_name, request.lora_path)
        return Response(f"Success: LoRA adapter '{request.lora_name}' added successfully.")

    @app.post("/v1/unload_lora_adapter")
    async def unload(request: UnloadRequest) -> Response:
        await pool.unload(request.lora_name)
        return Response(f"Success: LoRA adapter '{request.lora_name}' removed successfully.")

    @app.post("/v1/chat/completions")
    async def chat(request: ChatRequest) -> Response:
        row = pool.row(request)
        if request.stream:
            return StreamingResponse(_stream(pool, metrics, request, row), media_type="text/event-stream")
        await asyncio.wrap_future(pool.engine.generate(row))
        metrics.count(row)
        return JSONResponse(completion(request, row, pool.text(row)))

    return app


async def _stream(pool: Pool, metrics: EngineMetrics, request: ChatRequest, row: GenerationRow) -> AsyncIterator[str]:
    stream = Stream(request)
    yield stream.start()
    try:
        async with aclosing(pool.texts(row)) as texts:
            async for text in texts:
                yield stream.text(text)
    finally:
        metrics.count(row)
    yield stream.end(row)


def _add_probes(app: FastAPI, pool: Pool, metrics: EngineMetrics) -> None:
    @app.get("/health")
    async def health() -> Response:
        return Response()

    @app.get("/metrics")
    async def expose() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": list(pool.cards())}


def serve(config: Config, host: str, port: int) -> None:
    """Serve until SIGTERM. Raises UserError if the port is taken or the base model cannot be loaded."""
    # peft 0.21 asks transformers 5.23 by the old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    if "OMP_NUM_THREADS" not in os.environ:
        # Leave one core to other processes. If they compete with torch for every core, its threads wait for each
        # other: 16 tokens a second instead of 121, on two cores under a load of five.
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    run_server(lambda: create_app(config), host, port, "model server")
