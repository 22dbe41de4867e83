"""Serve one base model and any number of LoRA adapters on a CPU, with the part of vLLM's API that we use.

On a cluster vLLM is used in its place.
"""

import asyncio
import os
import warnings
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any, Literal

import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, Field

from ratchet.config import Config
from ratchet.http_limits import CLIENT_LEFT, Limits, RequestRefused
from ratchet.http_service import in_shape, new_service, read_json, run_server
from ratchet.inference.completions import Completion
from ratchet.inference.metrics import EngineMetrics
from ratchet.inference.openai_api import ChatRequest
from ratchet.inference.pool import Pool

LIMITS = Limits(body_bytes=4 << 20)


class LoadRequest(BaseModel):
    lora_name: str = Field(min_length=1)
    lora_path: str = Field(min_length=1)
    load_inplace: Literal[False] = Field(False, description="other weights under a name in use would deceive the gate")


class UnloadRequest(BaseModel):
    lora_name: str


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
    async def chat(http: Request) -> Response:
        request = in_shape(await read_json(http), ChatRequest)
        completion = await pool.completion(request)
        if request.stream:
            return StreamingResponse(_stream(pool, metrics, completion), media_type="text/event-stream")
        async with aclosing(_generate(pool, metrics, completion, is_streamed=False)) as steps:
            async for _ in steps:
                if await http.is_disconnected():
                    raise RequestRefused(CLIENT_LEFT, "the client left before its answer was complete")
        return JSONResponse(completion.whole())

    return app


async def _generate(
    pool: Pool, metrics: EngineMetrics, completion: Completion, *, is_streamed: bool
) -> AsyncGenerator[None, None]:
    try:
        async with aclosing(pool.generate(completion.rows, is_streamed=is_streamed)) as steps:
            async for _ in steps:
                yield
    finally:
        for row in completion.rows:
            metrics.count(row)


async def _stream(pool: Pool, metrics: EngineMetrics, completion: Completion) -> AsyncIterator[str]:
    yield completion.start()
    async with aclosing(_generate(pool, metrics, completion, is_streamed=True)) as steps:
        async for _ in steps:
            if news := completion.more():
                yield news
    yield completion.more() + completion.end()


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

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        pool.slot(name)
        return next(card for card in pool.cards() if card["id"] == name)


def serve(config: Config, host: str, port: int) -> None:
    """Serve until SIGTERM. Raises UserError if the port is taken or the base model cannot be loaded."""
    # peft 0.21 asks transformers 5.23 by the old name.
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)
    if "OMP_NUM_THREADS" not in os.environ:
        # Leave one core to other processes. If they compete with torch for every core, its threads wait for each
        # other: 16 tokens a second instead of 121, on two cores under a load of five.
        torch.set_num_threads(max(1, torch.get_num_threads() - 1))
    run_server(lambda: create_app(config), host, port, "model server")
