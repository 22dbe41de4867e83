"""Adapter syncer: a sidecar that keeps the adapters of its model server equal to those that the ledger names.

Level-triggered: each pass reads the ledger, copies and verifies missing adapters, and loads them into the server of its
pod. So a restarted server gets its adapters back, each replica is independent, and a candidate is loaded before its
router is ready. The pod is ready only while it has every adapter that was promoted.
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
from ratchet.http_limits import RequestRefused
from ratchet.http_service import new_service, run_server
from ratchet.inference.adapter_pool import AdapterPool
from ratchet.release.ledger import SERVING, Ledger, LedgerRecord
from ratchet.store import open_store

logger = logging.getLogger(__name__)


def named_last(records: Iterable[LedgerRecord], how_many: int) -> list[AdapterRef]:
    """Return the last adapters in the ledger, newest first: candidate, champion, and those a rollback returns to."""
    named = (adapter for record in reversed(list(records)) for adapter in (record.adapter, record.baseline))
    distinct = dict.fromkeys(adapter for adapter in named if adapter and not adapter.is_base)
    return list(distinct)[:how_many]


@dataclass
class Syncer:
    """One server and the ledger that it follows. `troubles`: why an adapter is not loaded, by adapter."""

    ledger: Ledger
    pool: AdapterPool
    max_adapters: int
    troubles: dict[str, str] = field(default_factory=dict)
    is_ready: bool = False

    def sync(self) -> None:
        """Run one pass. Raises UserError if the ledger or the server does not answer."""
        records = self.ledger.records()
        wanted = named_last(records, self.max_adapters)
        troubles = {}
        for adapter in wanted:
            try:
                self.pool.ensure(adapter)
            except UserError as error:
                troubles[str(adapter)] = str(error)
        self.pool.keep_only(set(wanted))
        self.troubles = troubles  # assigned at once: probes and metrics read it concurrently
        promoted = {str(record.adapter) for record in records if record.event in SERVING}
        # A candidate that fails to load only keeps its own router unready; the serving adapters are not affected.
        self.is_ready = not promoted & set(troubles)


def create_app(syncer: Syncer, poll_s: float) -> FastAPI:
    """Return the app with a syncer's probes and metrics; it syncs every `poll_s` while the app runs."""
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

    app = new_service("Ratchet adapter syncer", invalid_status=422, lifespan=lifespan)

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
    logged: dict[str, str] = {}
    while True:
        try:
            await asyncio.to_thread(syncer.sync)
            troubles = syncer.troubles
        except Exception as error:  # S3 or the server is down: loaded adapters keep serving, the next pass retries
            failures.inc()
            troubles = {"pass": repr(error)}
        for name in troubles.keys() - {name for name in logged if logged[name] == troubles.get(name)}:
            logger.warning("%s: %s", name, troubles[name])
        logged = troubles
        await asyncio.sleep(poll_s)


def serve(lake: str, pool_url: str, folder: Path, host: str, port: int, poll_s: float, max_adapters: int) -> None:
    """Sync until SIGTERM. Raises UserError if the port is taken."""
    syncer = Syncer(Ledger(open_store(lake)), AdapterPool(pool_url, folder), max_adapters)
    run_server(lambda: create_app(syncer, poll_s), host, port, "syncer")
