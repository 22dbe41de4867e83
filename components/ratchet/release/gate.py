"""The gate: Flagger asks before every move of a canary, and the votes answer.

A background refresh reads the cluster, the ledger and new events and works out every answer; a hook only looks its
answer up. Whatever goes wrong here makes answers old, and an old answer is a refusal: nothing is promoted on it, and
nothing rolled back.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response
from prometheus_client import CollectorRegistry, Gauge, generate_latest

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.release.cluster import Cluster, Seen
from ratchet.release.evidence import Evidence, Point
from ratchet.release.hooks import ALWAYS, HOOKS, Answer, Limits, View, answer
from ratchet.release.ledger import Ledger, Record, is_aborted, open_request, quarantined
from ratchet.release.trial import Trial
from ratchet.serving.server import run_server
from ratchet.store import Store

STALE_S = 10.0
SETTLE_S = 0.5  # Flagger moves the route within the tick in which it got its yes
MAX_HISTORY = 200  # points in /state; more are thinned out evenly
log = logging.getLogger("ratchet.gate")


class Watch:
    """The gate's eyes: `refresh` looks once; `answers` and `state` are what it then knows."""

    def __init__(self, config: Config, store: Store, cluster: Cluster) -> None:
        self.config, self.store, self.cluster = config, store, cluster
        self.limits = Limits(min_votes=config.gate.min_votes, max_minutes=config.gate.max_minutes)
        self.ledger = Ledger(store)
        self.trial: Trial | None = None
        self.answers: dict[str, Answer] = {}
        self.state: dict[str, Any] = {"decision": "undecided", "why": "the gate has not looked yet", "history": []}
        self.refreshed_at = float("-inf")
        self._stepped_at = float("-inf")

    def refresh(self, now: float) -> None:
        """Look once. Raises, and keeps what it knew, where it cannot see."""
        seen = self.cluster.look()
        records = self.ledger.records()  # after the cluster: a request is on record before any pod names its adapter
        self._follow(open_request(records))
        if self.trial is not None:
            self.trial.look(seen, now)
        view = self._view(seen, records, now)
        self.answers = {hook: answer(hook, view, self.limits) for hook in HOOKS}
        self.state = _state(view, seen, self.answers["rollback"])
        self.refreshed_at = now

    def answer(self, hook: str, now: float) -> Answer:
        """What the last look says, unless that is too long ago."""
        if hook in ALWAYS:
            return Answer(True, "noted")
        age_s = now - self.refreshed_at
        if age_s > max(STALE_S, 5 * self.config.gate.refresh_s):
            return Answer(False, f"the gate last saw cluster and lake {age_s:.0f} s ago; see its log")
        given = self.answers.get(hook, Answer(False, f"no such hook; there are {', '.join(HOOKS)}"))
        return self._one_yes_a_look(given, now) if hook == "confirm-traffic-increase" else given

    def _one_yes_a_look(self, given: Answer, now: float) -> Answer:
        """A step is granted once: until we have seen the route after it, the votes and weight we know are the old."""
        if given.is_yes and self.refreshed_at < self._stepped_at + SETTLE_S:
            return Answer(False, "the gate has not looked since the last step")
        if given.is_yes:
            self._stepped_at = now
        return given

    def _follow(self, request: Record | None) -> None:
        if request is None:
            self.trial = None
        elif self.trial is None or self.trial.request != request:
            self.trial = Trial(self.config.gate, self.store, request)

    def _view(self, seen: Seen, records: Sequence[Record], now: float) -> View:
        trial = self.trial
        return View(
            target=seen.target.digest,
            primary=seen.primary.digest,
            weight=seen.weight,
            request=trial.request if trial else None,
            quarantined=frozenset(quarantined(records)),
            is_aborted=trial is not None and is_aborted(records, trial.request),
            evidence=trial.evidence if trial else None,
            num_steps=trial.num_steps if trial else 0,
            minutes=trial.age_s(now) / 60 if trial else 0.0,
        )


def build_app(watch: Watch) -> FastAPI:
    """Hooks, /state, /metrics and /healthz over a watch that refreshes in the background."""

    @asynccontextmanager
    async def watching(app: FastAPI) -> AsyncIterator[None]:
        task = asyncio.create_task(_refresh_forever(watch))
        yield
        task.cancel()

    app = FastAPI(title="ratchet gate", lifespan=watching, openapi_url=None)

    @app.post("/hooks/{hook}")
    async def hooks(hook: str) -> JSONResponse:
        given = watch.answer(hook, time.time())
        log.info("%s: %s, %s", hook, "yes" if given.is_yes else "no", given.why)
        return JSONResponse({"hook": hook, "is_yes": given.is_yes, "why": given.why}, 200 if given.is_yes else 403)

    @app.get("/state")
    async def state() -> dict[str, Any]:
        return watch.state

    @app.get("/healthz")
    async def healthz() -> dict[str, bool]:
        return {"ok": True}

    @app.get("/metrics")
    async def metrics() -> Response:
        return Response(_metrics(watch.state), media_type="text/plain; version=0.0.4")

    return app


async def _refresh_forever(watch: Watch) -> None:
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


def _state(view: View, seen: Seen, rollback: Answer) -> dict[str, Any]:
    """What people and the release step read at /state; times in seconds since the run began."""
    request, evidence = view.request, view.evidence
    return {
        "candidate": request.adapter.digest if request else None,
        "baseline": request.baseline.digest if request and request.baseline else None,
        "attempt": request.attempt if request else None,
        "phase": seen.phase,
        "weight": seen.weight,
        "minutes": round(view.minutes, 3),
        "rollback": rollback.why if rollback.is_yes else None,
        **(_evidence_state(evidence) if evidence else {"votes": {}, "decision": "undecided", "history": []}),
        "why": evidence.why if evidence else rollback.why,
    }


def _evidence_state(evidence: Evidence) -> dict[str, Any]:
    thinned = evidence.history[:: 1 + len(evidence.history) // MAX_HISTORY]
    return {
        "votes": {arm: asdict(tally) for arm, tally in evidence.votes.items()},
        "log_e": {"harm": evidence.harm, "no_worse": evidence.no_worse, "split": evidence.split},
        "bound": evidence.bound,
        "decision": evidence.decision,
        "excluded": evidence.excluded,
        "history": [_point(point) for point in thinned],
    }


def _point(point: Point) -> dict[str, Any]:
    votes = {arm: asdict(tally) for arm, tally in point.votes.items()}
    log_e = {"harm": point.harm, "no_worse": point.no_worse}
    return {"t": point.t, "votes": votes, "log_e": log_e, "weight": point.weight}


def _metrics(state: dict[str, Any]) -> bytes:
    registry = CollectorRegistry()
    log_e = Gauge("adapter_gate_log_e", "Evidence of each test; decided at the bound", ["test"], registry=registry)
    votes = Gauge("adapter_gate_votes", "Votes of this run by arm and direction", ["arm", "is_up"], registry=registry)
    for test, value in state.get("log_e", {}).items():
        log_e.labels(test).set(value)
    for arm, tally in state.get("votes", {}).items():
        votes.labels(arm, "true").set(tally["up"])
        votes.labels(arm, "false").set(tally["n"] - tally["up"])
    return generate_latest(registry)


def serve(config: Config, store: Store, host: str, port: int) -> None:
    """Run the gate until it is told to stop. Raises UserError for a missing cluster_url or a taken port."""
    settings = config.release_adapter
    if settings.cluster_url is None:
        raise UserError("release_adapter.cluster_url is not set; the gate has to see the canary")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    with Cluster(settings.cluster_url, settings.namespace, settings.canary) as cluster:
        run_server(lambda: build_app(Watch(config, store, cluster)), host, port, "gate")
