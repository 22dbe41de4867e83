"""Hooks answered a second by one caller, while the gate weighs 20,000 votes again and again; the floor is /healthz.

The ledger holds 1,000 releases before the one under way. Flagger waits for each hook within its tick, so what counts
is the slowest answer: it is printed too.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config, Gate
from ratchet.events import Feedback, Interaction, Message
from ratchet.http_service import free_ports, run_server
from ratchet.ingest.landing import land
from ratchet.release.gate.app import build_app
from ratchet.release.gate.state import GateState
from ratchet.release.gate.tokens import bearer, hook_token
from ratchet.release.ledger import ROOT, Ledger, LedgerEntry, LedgerRecord, request
from ratchet.release.reconciler.kubernetes import ClusterSnapshot
from ratchet.store import Store, open_store

NUM_VOTES = 20_000
NUM_RELEASES = 1_000
NUM_CALLS = 2_000
TOKEN = "benchmark-of-the-gate"
OLD, NEW = AdapterRef(), AdapterRef(name="adapter", version="1", uri="lake", digest="b" * 64)
GOAL_MS = 50.0


class Standing:
    """A cluster that stands still, in the middle of a canary."""

    def look(self) -> ClusterSnapshot:
        return ClusterSnapshot(
            uid="u",
            phase="Progressing",
            failed_checks=0,
            canary_weight=50,
            last_applied_spec="b",
            last_promoted_spec="a",
            target=NEW,
            primary=OLD,
            weight=50,
        )


def run() -> dict[str, float]:
    """Answers a second: of a hook while votes are weighed, and of /healthz at the same time."""
    with tempfile.TemporaryDirectory() as folder:
        _land(open_store(folder))
        port = free_ports(1)[0]
        gate = subprocess.Popen([sys.executable, "-m", "benchmarks.gate", folder, str(port)])
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                _wait(client)
                body = {"name": "adapter-router", "namespace": "ratchet", "metadata": {"token": hook_token(TOKEN)}}
                hooks = _timed(lambda: client.post("/hooks/rollback", json=body))
                floor = _timed(lambda: client.get("/healthz"))
        finally:
            gate.kill()
            gate.wait()
    _say("hook", hooks)
    _say("/healthz", floor)
    return {"hook": len(hooks) / sum(hooks), "/healthz": len(floor) / sum(floor)}


def _timed(call: Any) -> list[float]:
    taken = []
    for _ in range(NUM_CALLS):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return sorted(taken)


def _say(name: str, taken: list[float]) -> None:
    p50, p99, most = (1000 * taken[int(share * (len(taken) - 1))] for share in (0.5, 0.99, 1.0))
    print(f"  {name}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, slowest {most:.1f} ms (goal: {GOAL_MS:.0f} ms)")


def _wait(client: httpx.Client) -> None:
    while True:
        try:
            votes = client.get("/metrics", headers=bearer(TOKEN)).text
        except httpx.HTTPError:
            votes = ""
        if 'adapter_votes_total{arm="canary"' in votes:
            return
        time.sleep(0.1)


def _land(store: Store) -> None:
    """Two arms alike, so that the gate goes on weighing; everybody votes once."""
    now = time.time()
    for number in range(NUM_RELEASES):
        past = {"at": now, "who": "benchmark", "adapter": OLD, "baseline": OLD, "verdict": "pass"}
        for seq, event in ((2 * number + 1, "requested"), (2 * number + 2, "promoted")):
            record = LedgerRecord(event=event, seq=seq, **past)
            store.create(f"{ROOT}/{seq:08d}.json", record.model_dump_json().encode())
    entry = LedgerEntry(event="requested", at=now, who="benchmark", adapter=NEW, baseline=OLD, verdict="pass")
    request(Ledger(store), entry)
    events: list[Interaction | Feedback] = []
    for number in range(NUM_VOTES):
        name, at = f"i{number}", now + 60 + number * 1e-3
        adapter = NEW if number % 2 else OLD
        events.append(
            Interaction(
                interaction_id=name,
                conversation_id=name,
                subject_id=name,
                base_model="none",
                response="yes",
                messages=[Message(role="user", content="well?")],
                adapter_digest=adapter.digest,
                served_at=at,
            )
        )
        value = -1 if number % 10 < 2 else 1
        events.append(
            Feedback(feedback_id=name, interaction_id=name, subject_id=name, kind="thumb", value=value, created_at=at)
        )
    land(store, events)


def _serve(folder: str, port: int) -> None:
    config = Config(gate=Gate(refresh_s=0.01))  # as good as always looking
    watch = GateState(config, open_store(Path(folder)), Standing())  # type: ignore[arg-type]
    run_server(lambda: build_app(watch, TOKEN), "127.0.0.1", port, "gate")


if __name__ == "__main__":
    _serve(sys.argv[1], int(sys.argv[2]))
