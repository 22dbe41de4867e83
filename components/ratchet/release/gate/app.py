"""The gate service: answers Flagger's webhooks before every move of a canary, from the votes.

A background refresh works out every answer; a webhook only looks its answer up. A caller needs a token, and the gate's
own failures are refusals: they promote nothing and roll nothing back.
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
from fastapi.responses import HTMLResponse, JSONResponse, Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from pydantic import BaseModel, Field

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.http_limits import RequestRefused
from ratchet.http_service import in_shape, is_secret, new_service, openapi_body, printable, read_json, run_server
from ratchet.release.gate.state import GateState
from ratchet.release.gate.tokens import METADATA_KEY, gate_token, hook_token
from ratchet.release.gate.webhooks import HookAnswer
from ratchet.release.ledger import LedgerRecord, request_abort
from ratchet.release.reconciler.kubernetes import ClusterReader
from ratchet.store import Store

MAX_TOKENS = 1000  # in a webhook's body; Flagger sends some fifty
BOARD_HEADERS = {
    "content-security-policy": "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
BOARD = Path(__file__).with_name("board.html")
log = logging.getLogger("ratchet.gate")


class HookCall(BaseModel):
    """A webhook's body. Flagger sends neither weight nor adapter, so the gate reads those from the cluster."""

    name: str = ""
    namespace: str = ""
    phase: str = ""
    checksum: str = ""
    metadata: dict[str, str] = {}


class Abort(BaseModel):
    why: str = Field(min_length=1, max_length=500)
    who: str = Field("board", min_length=1, max_length=100)


def build_app(gate: GateState, token: str) -> FastAPI:
    """Return the app: hooks, /state, /releases, /abort, board, /metrics, probes. It refreshes `gate` by itself."""

    @asynccontextmanager
    async def refreshing(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_refresh_forever(gate))
        yield
        task.cancel()

    app = new_service("Ratchet gate", lifespan=refreshing)
    _add_hooks(app, gate, hook_token(token))
    _add_operator_routes(app, gate, token)
    _add_probes(app, gate)
    return app


def _add_hooks(app: FastAPI, gate: GateState, token: str) -> None:
    """Add Flagger's webhooks. They answer 200 or 403 and nothing else: Flagger knows only passed and not passed."""

    @app.post("/hooks/{hook}", responses={403: {"description": "no"}}, openapi_extra=openapi_body(HookCall))
    async def hooks(hook: str, request: Request) -> JSONResponse:
        try:
            call = in_shape(await read_json(request, MAX_TOKENS), HookCall)
        except RequestRefused as error:
            return _response("body", HookAnswer(False, error.message))
        if not is_secret(call.metadata.get(METADATA_KEY, ""), token):
            return _response(hook, HookAnswer(False, f"metadata.{METADATA_KEY} is not the gate's hook token"))
        try:
            hook_answer = gate.answer(hook, time.time(), (call.name, call.namespace))
        except Exception:
            log.exception("%s: cannot answer", printable(hook, 64))
            hook_answer = HookAnswer(False, "the gate failed; see its log")
        return _response(hook, hook_answer)


def _response(hook: str, given: HookAnswer) -> JSONResponse:
    hook, why = printable(hook, 64), printable(given.why)
    log.info("%s: %s, %s", hook, "yes" if given.is_yes else "no", why)
    return JSONResponse({"hook": hook, "is_yes": given.is_yes, "why": why}, 200 if given.is_yes else 403)


def _add_operator_routes(app: FastAPI, gate: GateState, token: str) -> None:
    """Add the routes of people and of our own services, which send the token."""
    bearer = HTTPBearer(auto_error=False)

    async def authorised(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if given is None or not is_secret(given.credentials, token):
            raise RequestRefused(401, "send the gate's token: Authorization: Bearer $RATCHET_GATE_TOKEN")

    @app.get("/state", dependencies=[Depends(authorised)])
    async def state() -> dict[str, Any]:
        return gate.state

    @app.get("/releases", dependencies=[Depends(authorised)])
    async def releases() -> list[LedgerRecord]:
        return gate.records

    # Reads its body by itself: FastAPI would read it before the token.
    @app.post(
        "/abort",
        dependencies=[Depends(authorised)],
        openapi_extra=openapi_body(Abort),
        responses={409: {"description": "no release is under way"}},
    )
    async def abort(request: Request) -> LedgerRecord:
        requested = in_shape(await read_json(request, MAX_TOKENS), Abort)
        record = await asyncio.to_thread(request_abort, gate.ledger, requested.who, time.time(), requested.why)
        if record is None:
            raise RequestRefused(409, "no release is under way")
        return record

    registry = CollectorRegistry()
    registry.register(_Metrics(gate))

    @app.get("/metrics", dependencies=[Depends(authorised)])
    async def metrics() -> Response:
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/", response_class=HTMLResponse)
    async def board() -> HTMLResponse:
        return HTMLResponse(BOARD.read_text(encoding="utf-8"), headers=BOARD_HEADERS)


def _add_probes(app: FastAPI, gate: GateState) -> None:
    """Add Kubernetes' two questions."""

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/readyz")
    async def readyz() -> JSONResponse:
        """Ready once it has looked. Later trouble is its answers' to tell: without a pod Flagger would hear nothing."""
        has_looked = gate.refreshed_at > 0
        return JSONResponse({"ok": has_looked}, status_code=200 if has_looked else 503)


async def _refresh_forever(gate: GateState) -> None:
    last_error = ""
    while True:
        try:
            await asyncio.to_thread(gate.refresh, time.time())
            last_error = ""
        except Exception as error:  # a gate that cannot look must go on refusing, not exit
            if str(error) != last_error:
                log.warning("cannot look: %s", error, exc_info=not isinstance(error, (UserError, OSError)))
            last_error = str(error)
        await asyncio.sleep(gate.config.gate.refresh_s)


class _Metrics:
    """The release under way, as Prometheus metrics."""

    def __init__(self, gate: GateState) -> None:
        self.gate = gate

    def collect(self) -> Iterator[Metric]:
        state = self.gate.state
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
        age.add_metric([], max(0.0, self.gate.refreshed_at))
        bound = GaugeMetricFamily("adapter_gate_bound", "Log evidence at which a test has decided")
        bound.add_metric([], state.get("bound", 0.0))
        return iter((log_e, votes, age, bound))


def serve(config: Config, store: Store, host: str, port: int) -> None:
    """Run the gate until a signal ends it. Raises UserError for a missing cluster_url or token, or a taken port."""
    settings, token = config.release_adapter, gate_token(os.environ)
    if settings.cluster_url is None:
        raise UserError("release_adapter.cluster_url is not set; the gate has to see the canary")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with ClusterReader(settings.cluster_url, settings.namespace, settings.canary) as cluster:
        run_server(lambda: build_app(GateState(config, store, cluster), token), host, port, "gate")
