"""A fake of the cluster's API, at the edge: scripted states over real HTTP. And what tests say about adapters."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from ratchet.adapter_ref import PREFIX, AdapterRef
from ratchet.events import Feedback, Interaction, Message
from ratchet.ingest.landing import land
from ratchet.release.ledger import Ledger, LedgerEntry, LedgerRecord, request
from ratchet.store import Store
from support.http_server import running

VALUES = """\
# What serves. Written by machines.
adapter: # four keys
  name: base   # the base model alone
  version: "0"
  uri: ""
  digest: base
replicas:   2    # kept as it is, odd spacing and all
note: 'digest: base'
"""
OLD = AdapterRef()
NEW = AdapterRef(name="adapter", version="2", uri="/lake/adapters/" + "b" * 64, digest="b" * 64)

TOKEN = "the-operators-own-token"


class FakeCluster:
    """Answers the REST paths that the release code reads. `before_look` runs before each look, to move time on."""

    def __init__(self) -> None:
        self.phase, self.weight, self.canary_weight, self.failed_checks = "Initialized", 0, 0, 0
        self.applied, self.promoted = "spec-0", "spec-0"
        self.target, self.primary = OLD, OLD
        self.before_look: Callable[[], None] = lambda: None
        self.url = ""
        self.app = FastAPI()
        base = "/apis/{group}/{version}/namespaces/ratchet"
        self.app.get(base + "/canaries/adapter-router")(self._canary)
        self.app.get(base + "/deployments/{name}")(self._deployment)
        self.app.get(base + "/httproutes/adapter-router")(self._route)

    def start_run(self, weight: int = 0) -> None:
        self.target, self.phase, self.weight = NEW, "Progressing", weight
        self.applied = f"spec-of-{NEW.digest[:4]}"

    def succeed(self) -> None:
        self.primary, self.phase, self.weight, self.promoted = self.target, "Succeeded", 0, self.applied

    def fail(self) -> None:
        self.phase, self.weight, self.canary_weight = "Failed", 0, 0

    async def _canary(self) -> dict[str, Any]:
        import asyncio

        await asyncio.to_thread(self.before_look)
        status = {
            "phase": self.phase,
            "failedChecks": self.failed_checks,
            "canaryWeight": self.canary_weight,
            "lastAppliedSpec": self.applied,
            "lastPromotedSpec": self.promoted,
        }
        return {"metadata": {"name": "adapter-router", "uid": "u-1"}, "status": status}

    async def _deployment(self, name: str) -> dict[str, Any]:
        adapter = self.primary if name.endswith("-primary") else self.target
        annotations = {PREFIX + key: value for key, value in adapter.model_dump().items()}
        return {"spec": {"template": {"metadata": {"annotations": annotations}}}}

    async def _route(self) -> dict[str, Any]:
        weights = {"adapter-router-primary": 100 - self.weight, "adapter-router-canary": self.weight}
        refs = [{"name": name, "weight": weight} for name, weight in weights.items()]
        return {"spec": {"rules": [{"backendRefs": refs}]}}


serving = running


def git(*arguments: str, cwd: Path) -> str:
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@localhost")
    done = subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


def open_release(lake: Store, **changes: Any) -> LedgerRecord | None:
    entry = LedgerEntry(event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass")
    return request(Ledger(lake), entry.model_copy(update=changes))


def land_votes(lake: Store, num: int, liked_old: float, liked_new: float, seed: int = 0) -> None:
    """People who each ask once, of either arm in turn, and vote."""
    rng, now, events = random.Random(seed), time.time(), []
    for number in range(num):
        adapter = NEW if number % 2 else OLD
        name, at = f"{seed}-{number}", now + number * 1e-3
        answer = Interaction(
            interaction_id=name,
            conversation_id=name,
            subject_id=name,
            base_model="tiny",
            response="yes",
            messages=[Message(role="user", content="well?")],
            adapter_digest=adapter.digest,
            served_at=at,
        )
        value = 1 if rng.random() < (liked_new if number % 2 else liked_old) else -1
        vote = Feedback(
            feedback_id=name, interaction_id=name, subject_id=name, kind="thumb", value=value, created_at=at + 1e-4
        )
        events += [answer, vote]
    land(lake, events)
