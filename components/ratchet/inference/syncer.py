"""Adapter syncer: the sidecar that keeps one model server's adapters as the ledger names them.

Level-triggered: each pass reads the ledger, brings and verifies what is missing, and loads it into the server beside
it. So a server that is restarted gets its adapters back, every replica looks after itself, and a candidate is loaded
while its router still waits to be ready. The pod is ready only while it has every adapter that was promoted.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError
from ratchet.http_service import RequestRefused, answer_errors, run_server
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.release.ledger import SERVING, Ledger, LedgerRecord
from ratchet.store import open_store

logger = logging.getLogger(__name__)


def named_last(records: Iterable[LedgerRecord], how_many: int) -> list[AdapterRef]:
    """The adapters that the ledger named last, newest first: who comes, who serves, whom a rollback brings back."""
    named = (adapter for record in reversed(list(records)) for adapter in (record.adapter, record.baseline))
    distinct = dict.fromkeys(adapter for adapter in named if adapter and not adapter.is_base)
    return list(distinct)[:how_many]


@dataclass
class Syncer:
    """One server and what the ledger wants of it. `troubles`: why an adapter is not loaded, by adapter."""

    ledger: Ledger
    pool: AdapterPool
    max_adapters: int
    troubles: dict[str, str] = field(default_factory=dict)
    is_ready: bool = False

    def sync(self) -> None:
        """One pass. Raises UserError if ledger or server do not answer."""
        records = self.ledger.records()
        wanted = named_last(records, self.max_adapters)
        troubles = {}
        for adapter in wanted:
            try:
                self.pool.ensure(adapter)
            except UserError as error:
                troubles[str(adapter)] = str(error)
        self.pool.keep_only(set(wanted))
        self.troubles = troubles  # at once: probes and metrics are read meanwhile
        promoted = {str(record.adapter) for record in records if record.event in SERVING}
        # A candidate that cannot be loaded keeps its own router from being ready; what serves has to go on.
        self.is_ready = not promoted & set(troubles)


def create_app(syncer: Syncer, poll_s: float) -> FastAPI:
    """Probes and metrics of a syncer, which works as long as the app runs."""
    registry = CollectorRegistry()
    loaded = Gauge("ratchet_adapters_loaded", "Adapters in the server beside this one", registry=registry)
    loaded.set_function(lambda: len(syncer.pool.loaded))
    missing = Gauge(
        "ratchet_adapters_missing", "Adapters that the ledger names and cannot be loaded", registry=registry
    )
    missing.set_function(lambda: len(syncer.troubles))
    failures = Counter("ratchet_adapter_syncs_failed", "Passes without ledger or server", registry=registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(_keep_syncing(syncer, poll_s, failures))
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        syncer.pool.close()

    app = FastAPI(title="Ratchet adapter syncer", lifespan=lifespan)
    answer_errors(app, invalid_status=422)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> dict[str, list[str]]:
        if not syncer.is_ready:
            raise RequestRefused(503, "; ".join(syncer.troubles.values()) or "no pass has been made yet")
        return {"loaded": sorted(map(str, syncer.pool.loaded))}

    @app.get("/metrics")
    async def expose() -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return app


async def _keep_syncing(syncer: Syncer, poll_s: float, failures: Counter) -> None:
    told: dict[str, str] = {}
    while True:
        try:
            await asyncio.to_thread(syncer.sync)
            troubles = syncer.troubles
        except Exception as error:  # S3 or the server is away: what is loaded goes on serving, and the next pass tries
            failures.inc()
            troubles = {"pass": repr(error)}
        for name in troubles.keys() - {name for name in told if told[name] == troubles.get(name)}:
            logger.warning("%s: %s", name, troubles[name])
        told = troubles
        await asyncio.sleep(poll_s)


def serve(lake: str, pool_url: str, folder: Path, host: str, port: int, poll_s: float, max_adapters: int) -> None:
    """Sync until SIGTERM. Raises UserError where the port is taken."""
    syncer = Syncer(Ledger(open_store(lake)), AdapterPool(pool_url, folder), max_adapters)
    run_server(lambda: create_app(syncer, poll_s), host, port, "syncer")
