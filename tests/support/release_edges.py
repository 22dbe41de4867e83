"""A fake of the cluster's API, at the edge: scripted states over real HTTP. And what tests say about adapters."""

import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from fastapi import FastAPI

from ratchet.adapter_ref import PREFIX, AdapterRef
from ratchet.config import Config
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
        self.condition_at = "2026-01-01T00:00:00Z"
        self.target, self.primary = OLD, OLD
        self.nonces = {"target": "", "primary": ""}
        self.skip_analysis, self.is_primary_up = False, True
        self.before_look: Callable[[], None] = lambda: None
        self.url = ""
        self.app = FastAPI()
        base = "/apis/{group}/{version}/namespaces/ratchet"
        self.app.get(base + "/canaries/adapter-router")(self._canary)
        self.app.get(base + "/deployments/{name}")(self._deployment)
        self.app.get(base + "/httproutes/adapter-router")(self._route)

    def start_run(self, weight: int = 0) -> None:
        self.target, self.weight = NEW, weight
        self.enter("Progressing")
        self.applied = f"spec-of-{NEW.digest[:4]}"

    def succeed(self) -> None:
        self.primary, self.weight, self.promoted = self.target, 0, self.applied
        self.nonces["primary"] = self.nonces["target"]
        self.enter("Succeeded")

    def fail(self) -> None:
        self.weight, self.canary_weight = 0, 0
        self.enter("Failed")

    def enter(self, phase: str) -> None:
        """Move to a phase, as Flagger does: the condition's clock moves with it."""
        self.phase = phase
        self.condition_at = f"{self.condition_at[:-3]}{int(self.condition_at[-3:-1]) + 1:02}Z"

    async def _canary(self) -> dict[str, Any]:
        import asyncio

        await asyncio.to_thread(self.before_look)
        status = {
            "phase": self.phase,
            "failedChecks": self.failed_checks,
            "canaryWeight": self.canary_weight,
            "lastAppliedSpec": self.applied,
            "lastPromotedSpec": self.promoted,
            "conditions": [{"type": "Promoted", "reason": self.phase, "lastUpdateTime": self.condition_at}],
        }
        spec = {"skipAnalysis": self.skip_analysis, "analysis": {"interval": "10s"}}
        return {"metadata": {"name": "adapter-router", "uid": "u-1"}, "spec": spec, "status": status}

    async def _deployment(self, name: str) -> dict[str, Any]:
        is_primary = name.endswith("-primary")
        adapter = self.primary if is_primary else self.target
        annotations = {PREFIX + key: value for key, value in adapter.model_dump().items()}
        annotations["ratchet.dev/rollout-nonce"] = self.nonces["primary" if is_primary else "target"]
        num_up = 1 if self.is_primary_up or not is_primary else 0
        status = {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "availableReplicas": num_up}
        spec = {"replicas": 1, "template": {"metadata": {"annotations": annotations}}}
        return {"metadata": {"name": name, "generation": 1}, "spec": spec, "status": status}

    async def _route(self) -> dict[str, Any]:
        weights = {"adapter-router-primary": 100 - self.weight, "adapter-router-canary": self.weight}
        refs = [{"name": name, "weight": weight} for name, weight in weights.items()]
        return {"spec": {"rules": [{"backendRefs": refs}]}}


serving = running


def git(*arguments: str, cwd: Path) -> str:
    who = ("-c", "user.name=Somebody", "-c", "user.email=somebody@localhost")
    done = subprocess.run(["git", *who, *arguments], cwd=cwd, check=True, capture_output=True, text=True)
    return done.stdout


def write_settings(config: Config, path: Path) -> Path:
    """Write a ratchet.yaml for a process of its own, which refuses a timeout as short as the tests' own."""
    plain = config.model_dump(mode="json")
    del plain["release_adapter"]["timeout_s"]
    path.write_text(yaml.safe_dump(plain))
    return path


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
