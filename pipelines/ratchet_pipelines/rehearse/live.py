"""Releases on the real clock: gate, reconciler, cluster, routers and a stub pool as processes, and users who vote.

Only the model and the users are simulated, or the users alone, before a pool that runs already. A process that is
killed is started again, as on Kubernetes.
"""

import json
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml

from ratchet.adapter_ref import BASE_DIGEST, AdapterRef
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.http_service import free_ports
from ratchet.rehearsal.stub_pool import BASE, Manner
from ratchet.release.gate.tokens import VARIABLE
from ratchet.release.ledger import CLOSING, LedgerEntry, LedgerRecord, request
from ratchet.release.reconciler.actions import first_values, run_id
from ratchet.release.reconciler.gitops import GitUnavailable
from ratchet.release.reconciler.kubernetes import ClusterUnavailable
from ratchet.release.reconciler.targets import Targets, open_targets
from ratchet.store import open_store
from ratchet_pipelines.demo.prompts import prompts
from ratchet_pipelines.demo.users import NUM_AT_ONCE, Crowd
from ratchet_pipelines.local_stack import (
    CHART,
    CLI,
    VALUES_PATH,
    Stack,
    canary_url,
    create_repository,
    released_to,
)
from ratchet_pipelines.rehearse.faults import Fault, Public
from ratchet_pipelines.rehearse.supervisor import Supervisor, supervising

LOOK_S = 0.2
GIT_POLL_S = 2.0  # as with a Git webhook
START_TIMEOUT_S = 240.0  # routers and MLflow import for long on a busy machine
MAX_MINUTES = 4.0  # until a run is inconclusive; 25 requests a second come, and all are voted on
# Where routers write once S3 is gone: nothing listens there.
AWAY = {
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none",
    "AWS_DEFAULT_REGION": "none",
}  # fmt: skip
LIKED, DISLIKED = 0.94, 0.06  # chance that the demo's users like the stub's short and its long answer
VALUES = """\
adapter:
  name: base
  version: "0"
  uri: ""
  digest: base
progressDeadlineSeconds: 300
analysis:
  interval: {interval_s:.0f}s
  threshold: 3
  stepWeights: [20, 50]
"""


@dataclass(frozen=True, kw_only=True)
class RealClockResult:
    """How one release went in real processes."""

    outcome: str
    why: str
    seconds: float
    interval_s: float
    verdict_to_agreement_s: float | None
    """From the gate's verdict until weight, alias, Git and ledger all name the same adapter."""
    agrees: bool
    canary_votes: int
    restarts: dict[str, int]
    log: tuple[str, ...]


OnLook = Callable[[Supervisor, dict[str, Any]], None]


@dataclass(frozen=True, kw_only=True)
class Outside:
    """What runs already, in the place of what a rehearsal starts by itself; None: the rehearsal's own."""

    pool_url: str | None = None
    lake: str | None = None
    """`s3://bucket/prefix`, whose server and credentials are in the environment."""
    prometheus_url: str | None = None
    """It reads the routers' metrics, and Flagger asks it."""
    num_users: int = NUM_AT_ONCE
    """Visits at once: a pool with a real model, and a lake behind a server on one machine, bear fewer."""


@dataclass(frozen=True)
class LiveRehearsal:
    """Services and users at work."""

    config: Config
    targets: Targets
    supervisor: Supervisor
    folder: Path
    interval_s: float

    def release(
        self, candidate: Path | None, timeout_s: float, on_look: OnLook = lambda supervisor, state: None
    ) -> RealClockResult:
        """Release an adapter, without a folder a made-up one, and return how it went.

        `on_look` gets the gate's state at every look.
        """
        opened = _release(self.config, self.targets, candidate or _made_up(self.folder))
        return _Observer(self.targets, opened, self.supervisor, self.interval_s, on_look).until_settled(timeout_s)


@contextmanager
def live_rehearsal(
    config: Config, fault: Fault, public: Public, folder: Path, interval_s: float, outside: Outside = Outside()
) -> Iterator[LiveRehearsal]:
    """Run everything that a release needs until the block ends."""
    folder.mkdir(parents=True, exist_ok=True)
    own_pool, api, gateway, gate = (f"http://127.0.0.1:{port}" for port in free_ports(4))
    stack = Stack(outside.pool_url or own_pool, api, gateway, gate, str(folder / "git" / "deploy.git"))
    config = released_to(_quick(config), stack)
    os.environ.setdefault(VARIABLE, secrets.token_hex(24))  # every service inherits our environment
    with supervising(folder / "logs") as supervisor:
        _start(supervisor, stack, config, fault, public, folder, interval_s, outside)
        with (
            open_targets(config, open_store(outside.lake or folder)) as targets,
            _users(stack, fault, outside.num_users),
        ):
            yield LiveRehearsal(config, targets, supervisor, folder, interval_s)


class _Observer:
    """Asks every place again and again, until all agree on an end."""

    def __init__(
        self, targets: Targets, opened: LedgerRecord, supervisor: Supervisor, interval_s: float, on_look: OnLook
    ) -> None:
        self.targets, self.opened, self.supervisor = targets, opened, supervisor
        self.interval_s, self.on_look = interval_s, on_look
        self.started = time.monotonic()
        self.verdict_at: float | None = None
        self.votes = 0
        self.log: list[str] = []

    def until_settled(self, timeout_s: float) -> RealClockResult:
        agrees = False
        while not agrees and time.monotonic() < self.started + timeout_s:
            time.sleep(LOOK_S)
            state = self.targets.gate_state()
            self._note(state)
            self.on_look(self.supervisor, state)
            agrees = self._agrees()
        return self._result(agrees)

    def _note(self, state: dict[str, Any]) -> None:
        if state.get("candidate") != self.opened.adapter.digest:
            return
        self.votes = state["votes"].get("canary", {}).get("n", 0)
        line = f"{state['phase']} at {state['weight']} percent, {state['decision']}"
        if not self.log or not self.log[-1].endswith(line):
            self.log.append(f"{time.monotonic() - self.started:6.1f} s  {line}")
        if self.verdict_at is None and (state["rollback"] or state["decision"] == "pass"):
            self.verdict_at = time.monotonic()

    def _agrees(self) -> bool:
        """Return whether the release is closed and every place, read for itself, names the expected adapter."""
        from ratchet.registry.aliases import champion

        end = self.targets.ledger.records()[-1]
        if end.event not in CLOSING:
            return False
        try:
            snapshot, named = self.targets.cluster.look(), self.targets.values.read_adapter()
        except (ClusterUnavailable, GitUnavailable):
            return False
        alias = champion(self.targets.registry, self.targets.model)
        expected = self.opened.adapter if end.event == "promoted" else self.opened.baseline or AdapterRef()
        aliased = alias.tags["adapter_digest"] if alias else BASE_DIGEST
        return (snapshot.weight, snapshot.primary.digest, named.digest, aliased) == (0, *[expected.digest] * 3)

    def _result(self, agrees: bool) -> RealClockResult:
        last = self.targets.ledger.records()[-1]
        now = time.monotonic()
        took_s = now - self.verdict_at if agrees and self.verdict_at is not None else None
        return RealClockResult(
            outcome=last.event if last.event in CLOSING else "open",
            why=last.why,
            seconds=round(now - self.started, 1),
            interval_s=self.interval_s,
            verdict_to_agreement_s=round(took_s, 1) if took_s is not None else None,
            agrees=agrees,
            canary_votes=self.votes,
            restarts={name: service.starts - 1 for name, service in self.supervisor.services.items()},
            log=tuple(self.log),
        )


def _start(
    supervisor: Supervisor,
    stack: Stack,
    config: Config,
    fault: Fault,
    public: Public,
    folder: Path,
    interval_s: float,
    outside: Outside,
) -> None:
    home: str | Path = outside.lake or folder
    settings = folder / "ratchet.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")), encoding="utf-8")
    create_repository(Path(stack.git_url), VALUES.format(interval_s=interval_s))
    pool, api, gateway, gate = (
        url.rpartition(":")[2] for url in (stack.pool_url, stack.api_url, stack.gateway_url, stack.gate_url)
    )
    manners = {BASE: _manner(public.approval, Fault(says="")), "adapter@v1": _manner(public.approval, fault)}
    if outside.pool_url is None:
        supervisor.start("pool", "ratchet.rehearsal.stub_pool", "--port", pool, "--manners", json.dumps(manners))
    if not fault.is_gate_dead:
        supervisor.start("gate", CLI, "serve-gate", "--config", settings, "--lake", home, "--port", gate)
    supervisor.start("reconciler", CLI, "reconcile", "--config", settings, "--lake", home)
    lake, env = (home, {}) if fault.do_events_land else ("s3://away", AWAY)
    supervisor.start(
        "cluster",
        "ratchet.rehearsal",
        "--git-url",
        stack.git_url,
        "--values-path",
        VALUES_PATH,
        "--chart",
        CHART,
        "--pool-url",
        stack.pool_url,
        "--gate-url",
        stack.gate_url,
        "--lake",
        lake,
        "--api-port",
        api,
        "--gateway-port",
        gateway,
        "--speed",
        1,
        "--git-poll-s",
        GIT_POLL_S,
        "--namespace",
        config.release_adapter.namespace,
        "--state",
        folder / "cluster.json",
        "--prometheus",
        outside.prometheus_url or "",
        **env,
    )
    if not fault.is_gate_dead:
        _wait_for(f"{stack.gate_url}/healthz", folder)
    _wait_for(canary_url(config, stack.api_url), folder, lambda canary: canary["status"]["phase"] == "Initialized")


def _manner(approval: float, fault: Fault) -> dict[str, float]:
    good = (approval + fault.gain - DISLIKED) / (LIKED - DISLIKED)
    return asdict(Manner(good=min(1.0, max(0.0, good)), delay_s=1.0 + fault.delay_s, errors=fault.errors))


def _quick(config: Config) -> Config:
    """Return the same settings, with services fast enough for intervals of ten seconds and users who vote at once."""
    gate = {"refresh_s": 0.5, "harm_horizon_s": 1.0, "promotion_horizon_s": 2.0}
    return config.model_copy(
        update={
            "gate": config.gate.model_copy(update=gate | {"max_minutes": min(config.gate.max_minutes, MAX_MINUTES)}),
            "release_adapter": config.release_adapter.model_copy(update={"poll_s": 1.0}),
        }
    )


def _wait_for(url: str, folder: Path, is_ready: Callable[[Any], bool] = bool) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            answer = httpx.get(url, timeout=2)
            if answer.status_code == httpx.codes.OK and is_ready(answer.json()):
                return
        except httpx.HTTPError:
            pass
        time.sleep(LOOK_S)
    raise UserError(f"nothing answers at {url} after {START_TIMEOUT_S:.0f} s; see the logs in {folder / 'logs'}")


@contextmanager
def _users(stack: Stack, fault: Fault, num_users: int) -> Iterator[Crowd]:
    crowd = Crowd(stack.gateway_url, prompts(0), 0, vote_share=fault.vote_factor, brigade=fault.brigade)
    stop = threading.Event()
    talking = crowd.keep_visiting(stop, num_users)
    try:
        yield crowd
    finally:
        stop.set()
        talking.join()


def _made_up(folder: Path) -> Path:
    """Return the folder of an adapter for the stub pool, which reads none."""
    made = folder / "candidate"
    made.mkdir()
    (made / "adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    return made


def _release(config: Config, targets: Targets, candidate: Path) -> LedgerRecord:
    """Publish and register an adapter, open its release, and name it in Git, as the steps of the loop do."""
    from mlflow.exceptions import MlflowException

    from ratchet.registry.mlflow_store import connect

    published = targets.store.publish_tree(candidate, "adapters")
    place = f"{targets.store.root}/{published.uri}"
    client = connect(config, targets.store)
    with suppress(MlflowException):  # it exists, from the release before
        client.create_registered_model(targets.model)
    source = place if "://" in place else Path(place).as_uri()
    version = client.create_model_version(targets.model, source=source, tags={"adapter_digest": published.digest})
    adapter = AdapterRef(name=targets.model, version=str(version.version), uri=place, digest=published.digest)
    snapshot = targets.cluster.look()
    entry = LedgerEntry(
        event="requested",
        at=time.time(),
        who="rehearsal",
        adapter=adapter,
        baseline=snapshot.primary,
        verdict="pass",
        applied_spec=snapshot.last_applied_spec,
        condition_at=snapshot.condition_at,
    )
    opened = request(targets.ledger, entry)
    assert opened is not None  # the release before has ended
    targets.values.name_once(first_values(opened), f"Release adapter {adapter}", run_id(targets.cluster.canary, opened))
    return opened
