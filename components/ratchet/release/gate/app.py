"""The gate: Flagger asks before every move of a canary, and the votes answer.

A background refresh works out every answer; a hook only looks its answer up. Nobody without a token gets one, and
trouble of our own is a refusal: nothing is promoted on it, and nothing rolled back.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.exception_handlers import http_exception_handler
from fastapi.exceptions import HTTPException, RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel, Field

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.http_service import RequestRefused, answer_errors, error_response, run_server
from ratchet.release.gate.state import GateState
from ratchet.release.gate.tokens import METADATA_KEY, gate_token, hook_token, is_token
from ratchet.release.gate.webhooks import HookAnswer
from ratchet.release.ledger import LedgerRecord, request_abort
from ratchet.release.reconciler.kubernetes import ClusterReader
from ratchet.store import Store

BOARD = Path(__file__).with_name("board.html")
log = logging.getLogger("ratchet.gate")


class HookCall(BaseModel):
    """What Flagger sends; it tells neither weight nor adapter, so the gate reads those itself."""

    name: str = ""
    namespace: str = ""
    phase: str = ""
    checksum: str = ""
    metadata: dict[str, str] = {}


class Abort(BaseModel):
    why: str = Field(min_length=1, max_length=500)
    who: str = Field("board", min_length=1, max_length=100)


def build_app(watch: GateState, token: str) -> FastAPI:
    """Hooks, /state, /releases, /abort, the board, /metrics and /healthz over a watch that refreshes by itself."""

    @asynccontextmanager
    async def watching(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_refresh_forever(watch))
        yield
        task.cancel()

    app = FastAPI(title="Ratchet gate", lifespan=watching, docs_url=None, redoc_url=None)
    answer_errors(app, invalid_status=422)
    _add_hooks(app, watch, hook_token(token))
    _add_people(app, watch, token)
    _add_probes(app, watch)
    return app


def _add_hooks(app: FastAPI, watch: GateState, token: str) -> None:
    """Flagger's side: 200 or 403 and nothing else, since Flagger takes every other answer for one of the two."""

    @app.post("/hooks/{hook}", responses={403: {"description": "no"}, 422: {"description": "never: 403"}})
    async def hooks(hook: str, call: HookCall) -> JSONResponse:
        if not is_token(call.metadata.get(METADATA_KEY, ""), token):
            return _said(hook, HookAnswer(False, f"metadata.{METADATA_KEY} is not the gate's hook token"))
        try:
            given = watch.answer(hook, time.time())
        except Exception:
            log.exception("%s: cannot answer", hook)
            given = HookAnswer(False, "the gate failed; see its log")
        return _said(hook, given)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        places = (".".join(str(part) for part in fault["loc"][1:]) for fault in error.errors())
        return refused(request, 422, f"the body's shape is wrong: {', '.join(places)}")

    @app.exception_handler(HTTPException)
    async def unreadable(request: Request, error: HTTPException) -> Response:
        if error.status_code != 400:
            return await http_exception_handler(request, error)
        return refused(request, 400, str(error.detail))

    def refused(request: Request, status: int, why: str) -> Response:
        is_hook = request.url.path.startswith("/hooks/")
        return _said("body", HookAnswer(False, why)) if is_hook else error_response(status, why)


def _said(hook: str, given: HookAnswer) -> JSONResponse:
    log.info("%s: %s, %s", hook, "yes" if given.is_yes else "no", given.why)
    return JSONResponse({"hook": hook, "is_yes": given.is_yes, "why": given.why}, 200 if given.is_yes else 403)


def _add_people(app: FastAPI, watch: GateState, token: str) -> None:
    """The side of people and of our own services, who hold the token."""

    async def known(
        given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
    ) -> None:
        if given is None or not is_token(given.credentials, token):
            raise RequestRefused(401, "send the gate's token: Authorization: Bearer $RATCHET_GATE_TOKEN")

    @app.get("/state", dependencies=[Depends(known)])
    async def state() -> dict[str, Any]:
        return watch.state

    @app.get("/releases", dependencies=[Depends(known)])
    async def releases() -> list[LedgerRecord]:
        return watch.records

    @app.post("/abort", dependencies=[Depends(known)], responses={409: {"description": "no release is under way"}})
    async def abort(wanted: Abort) -> LedgerRecord:
        record = await asyncio.to_thread(request_abort, watch.ledger, wanted.who, time.time(), wanted.why)
        if record is None:
            raise RequestRefused(409, "no release is under way")
        return record

    @app.get("/", response_class=HTMLResponse)
    async def board() -> str:
        return BOARD.read_text(encoding="utf-8")


def _add_probes(app: FastAPI, watch: GateState) -> None:
    registry = CollectorRegistry()
    registry.register(_Measures(watch))

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")


async def _refresh_forever(watch: GateState) -> None:
    trouble = ""
    while True:
        try:
            await asyncio.to_thread(watch.refresh, time.time())
            trouble = ""
        except Exception as error:  # a gate that stops looking must go on refusing, not fall over
            if str(error) != trouble:
                log.warning("cannot look: %s", error, exc_info=not isinstance(error, (UserError, OSError)))
            trouble = str(error)
        await asyncio.sleep(watch.config.gate.refresh_s)


class _Measures:
    """What Prometheus reads of the release under way."""

    def __init__(self, watch: GateState) -> None:
        self.watch = watch

    def collect(self) -> Iterator[Metric]:
        state = self.watch.state
        log_e = GaugeMetricFamily(
            "adapter_gate_log_e", "Log evidence of each test; decided at the bound", labels=["test"]
        )
        for test, value in state.get("log_e", {}).items():
            log_e.add_metric([test], value)
        votes = CounterMetricFamily("adapter_votes", "Votes that count in this run", labels=["arm", "is_up"])
        for arm, tally in state.get("votes", {}).items():
            votes.add_metric([arm, "true"], tally["up"])
            votes.add_metric([arm, "false"], tally["n"] - tally["up"])
        age = GaugeMetricFamily("adapter_gate_look_timestamp_seconds", "When cluster and lake were last seen")
        age.add_metric([], max(0.0, self.watch.refreshed_at))
        bound = GaugeMetricFamily("adapter_gate_bound", "Log evidence at which a test has decided")
        bound.add_metric([], state.get("bound", 0.0))
        return iter((log_e, votes, age, bound))


def serve(config: Config, store: Store, host: str, port: int) -> None:
    """Run the gate until it is told to stop. Raises UserError for a missing cluster_url or token, or a taken port."""
    settings, token = config.release_adapter, gate_token(os.environ)
    if settings.cluster_url is None:
        raise UserError("release_adapter.cluster_url is not set; the gate has to see the canary")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with ClusterReader(settings.cluster_url, settings.namespace, settings.canary) as cluster:
        run_server(lambda: build_app(GateState(config, store, cluster), token), host, port, "gate")
