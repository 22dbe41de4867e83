"""Adapter syncer: a sidecar that keeps the adapters of its model server equal to those that the ledger names.

Level-triggered: each pass reads the ledger, copies and verifies missing adapters, and loads them into the server of its
pod. So a restarted server gets its adapters back, each replica is independent, and a candidate is loaded before its
router is ready. The pod is ready only while it has the champion.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from ratchet.adapter_ref import AdapterRef
from ratchet.http_limits import RequestRefused
from ratchet.http_service import new_service, run_server
from ratchet.inference.adapter_pool import AdapterPool, PoolAway
from ratchet.release.ledger import SERVING, Ledger, LedgerRecord, open_request
from ratchet.store import open_store

logger = logging.getLogger(__name__)


def wanted_adapters(records: Sequence[LedgerRecord], how_many: int) -> list[AdapterRef]:
    """Return the adapters to keep loaded: champion, open request and its baseline, then those that served last.

    The champion stays, whatever else the ledger names. One that was refused or rolled back has nothing to answer.
    """
    opened = open_request(records)
    first = (champion(records), opened and opened.adapter, opened and opened.baseline)
    served = ((record.event in SERVING and record.adapter, record.baseline) for record in reversed(records))
    named = (*first, *(adapter for pair in served for adapter in pair))
    by_name: dict[str, AdapterRef] = {}
    for adapter in named:
        if adapter and not adapter.is_base:
            by_name.setdefault(str(adapter), adapter)
    return list(by_name.values())[:how_many]


def champion(records: Sequence[LedgerRecord]) -> AdapterRef | None:
    """Return the adapter that serves all users but a canary's; None where the ledger does not say."""
    for record in reversed(records):
        if record.event in SERVING:
            return record.adapter
        if record.baseline:  # it served when the release was requested, and again after a rollback
            return record.baseline
    return None


@dataclass
class Syncer:
    """One server and the ledger that it follows. `troubles`: why an adapter is not loaded, by adapter."""

    ledger: Ledger
    pool: AdapterPool
    max_adapters: int
    loaded: list[str] = field(default_factory=list)
    troubles: dict[str, str] = field(default_factory=dict)
    is_ready: bool = False
    _records: Sequence[LedgerRecord] | None = None

    def sync(self) -> None:
        """Run one pass. If the ledger does not answer, run it by what was read before, then raise the ledger's error.

        The server may have restarted meanwhile, and the files are here.
        """
        fault = self._read_ledger()
        if self._records is not None:
            self._load(self._records)
        if fault:
            raise fault

    def _read_ledger(self) -> Exception | None:
        try:
            self._records = self.ledger.records()
        except Exception as error:  # S3's errors are many
            return error
        return None

    def _load(self, records: Sequence[LedgerRecord]) -> None:
        wanted, serving = wanted_adapters(records, self.max_adapters), champion(records)
        try:
            self.pool.keep_only(wanted)  # before loading: a server has room for so many
            troubles = {str(adapter): trouble for adapter in wanted if (trouble := self._trouble(adapter))}
        except PoolAway as away:
            troubles = {str(adapter): str(away) for adapter in wanted}
        # Assigned at once: probes and metrics read them concurrently.
        self.troubles = troubles
        self.loaded = [str(adapter) for adapter in wanted if str(adapter) not in troubles]
        # A candidate that fails to load only keeps its own router unready; the champion is not affected.
        self.is_ready = serving is None or serving.is_base or str(serving) in self.loaded

    def _trouble(self, adapter: AdapterRef) -> str | None:
        """Load the adapter; return the reason if that fails. Raises PoolAway."""
        try:
            self.pool.ensure(adapter)
        except PoolAway:
            raise
        except Exception as error:  # of this adapter alone: the others are loaded all the same
            return str(error)
        return None


def create_app(syncer: Syncer, poll_s: float) -> FastAPI:
    """Return the app with a syncer's probes and metrics; it syncs every `poll_s` while the app runs."""
    registry = CollectorRegistry()
    loaded = Gauge("ratchet_adapters_loaded", "Adapters in the server beside this one", registry=registry)
    loaded.set_function(lambda: len(syncer.loaded))
    missing = Gauge(
        "ratchet_adapters_missing", "Adapters that the ledger names and cannot be loaded", registry=registry
    )
    missing.set_function(lambda: len(syncer.troubles))
    failures = Counter("ratchet_adapter_syncs_failed", "Passes without the ledger", registry=registry)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        work = asyncio.create_task(_keep_syncing(syncer, poll_s, failures))
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        syncer.pool.close()

    app = new_service("Ratchet adapter syncer", lifespan=lifespan)

    @app.get("/healthz")
    async def alive() -> dict[str, str]:
        return {"status": "alive"}

    @app.get("/readyz")
    async def ready() -> dict[str, list[str]]:
        if not syncer.is_ready:
            raise RequestRefused(503, "; ".join(syncer.troubles.values()) or "no pass has been made yet")
        return {"loaded": sorted(syncer.loaded)}

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
        except Exception as error:  # the ledger does not answer: what is loaded keeps serving, the next pass retries
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
