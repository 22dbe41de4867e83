"""The gateway: forwards each request to the primary or the canary, by the HTTPRoute's weights."""

import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from ratchet.rehearsal.cluster import Cluster
from ratchet.rehearsal.http_route import weights

TIMEOUT_S = 120.0  # the chart's gateway.timeout
KEEP_ALIVE_S = 2.0  # below the routers' own, so that a pooled connection is never one they have just closed
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-authorization"}
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD"]


def gateway(cluster: Cluster, name: str, seed: int) -> FastAPI:
    """Return the app that proxies to the Deployments `name` and `name`-primary. The seed fixes the choices."""
    draw = random.Random(seed)
    limits = httpx.Limits(max_connections=None, keepalive_expiry=KEEP_ALIVE_S)
    client = httpx.AsyncClient(timeout=TIMEOUT_S, limits=limits, trust_env=False)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await client.aclose()

    app = FastAPI(title="rehearsal gateway", lifespan=lifespan, openapi_url=None)

    @app.api_route("/{path:path}", methods=METHODS)
    async def forward(path: str, request: Request) -> Response:
        deployment = choose(cluster, name, draw.random())
        url = cluster.endpoint(deployment)
        if url is None:
            return _refusal(503, f"no router of {deployment} is ready; see the cluster's /events")
        body = await request.body()
        target = httpx.URL(url, path=f"/{path}", query=request.url.query.encode() or None)
        forwarded = client.build_request(request.method, target, headers=_end_to_end(request.headers), content=body)
        try:
            answer = await client.send(forwarded, stream=True)
        except httpx.TimeoutException:
            return _refusal(504, f"{deployment} gave no answer within {TIMEOUT_S:.0f} s")
        except httpx.TransportError as error:
            return _refusal(502, f"{deployment} broke off: {error!r}")
        return StreamingResponse(_relay(answer), status_code=answer.status_code, headers=_end_to_end(answer.headers))

    return app


def choose(cluster: Cluster, name: str, drawn: float) -> str:
    """Return the Deployment that serves a request, by a number drawn for it from [0, 1)."""
    route = cluster.get("HTTPRoute", name)
    primary, canary = weights(route) if route else (1, 0)
    return name if drawn * (primary + canary) < canary else f"{name}-primary"


async def _relay(answer: httpx.Response) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.aiter_raw():
            yield chunk
    finally:  # also when the caller hangs up
        await answer.aclose()


def _end_to_end(headers: Mapping[str, str]) -> dict[str, str]:
    return {key: value for key, value in headers.items() if key.lower() not in HOP_BY_HOP | {"host"}}


def _refusal(status: int, message: str) -> JSONResponse:
    return JSONResponse({"error": {"message": message, "type": "gateway_error", "code": status}}, status)
