"""Whatever happens in whatever order: a release ends where every place agrees, and only what was analysed is promoted.

The scheduler model, the hooks, the ledger, the lease and the reconciler are the real ones. Git, MLflow and the object
store are fakes in memory, so that thousands of histories fit into a test.
"""

import copy
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError
from ratchet.rehearsal.canary_spec import Hook
from ratchet.rehearsal.canary_status import ANALYSING, Phase
from ratchet.rehearsal.flagger import Readiness
from ratchet.release.gate.evidence import Evidence, Tally
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.gate.webhooks import GateView, Limits, answer
from ratchet.release.ledger import (
    CLOSING,
    Ledger,
    LedgerEntry,
    is_aborted,
    open_request,
    quarantined,
    request,
    request_abort,
)
from ratchet.release.operator_rollback import request_rollback
from ratchet.release.reconciler.actions import first_values, run_id
from ratchet.release.reconciler.kubernetes import ClusterSnapshot, ClusterUnavailable
from ratchet.release.reconciler.reconcile import ReconcileResult, reconcile
from ratchet.release.reconciler.targets import Targets
from ratchet_pipelines.rehearse.memory import MemoryGit, MemoryRegistry, MemoryStore
from ratchet_pipelines.rehearse.virtual_cluster import Manifests, VirtualCluster

BASE = AdapterRef()
ADAPTERS = {v: AdapterRef(name="adapter", version=v, uri=f"lake/{v}", digest=v * 64) for v in "123"}
STRAY = AdapterRef(name="adapter", version="9", uri="lake/9", digest="9" * 64)
HOOK_TYPES = ("confirm-rollout", "rollback", "confirm-traffic-increase", "confirm-promotion", "post-rollout")
NAME = "adapter-router"
DEPLOYMENT = {
    "kind": "Deployment",
    "metadata": {"name": NAME},
    "spec": {
        "selector": {"matchLabels": {"app": NAME}},
        "template": {"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [{"image": "router:0"}]}},
    },
}
CANARY = {
    "kind": "Canary",
    "metadata": {"name": NAME, "namespace": "test"},
    "spec": {
        "targetRef": {"name": NAME},
        "service": {"port": 80, "gatewayRefs": [{"name": "gateway"}], "hosts": ["host"]},
        "analysis": {
            "interval": "10s",
            "threshold": 2,
            "stepWeights": [20, 50],
            "webhooks": [{"name": kind, "type": kind, "url": "http://gate"} for kind in HOOK_TYPES],
        },
    },
}
LIMITS = Limits(min_votes=0, max_minutes=1e9)
LEASE_S = 10.0


class Killed(BaseException):
    """Stands for SIGKILL, or for a sleep so long that another took over: nothing catches it."""


@dataclass
class Universe(VirtualCluster):
    """Everything a release touches, and everybody who touches it."""

    verdict: Any = "undecided"
    view: GateView | None = None
    num_ticks: int = 0
    seen_at: int = -1
    """The tick before which the gate looked last: it refuses on a look that is older than the tick before."""
    sync_at: str = ""
    """A hook during which Argo CD syncs."""
    image: int = 0
    hosts: int = 0
    judged: int = -1
    """The request whose canary the gate has seen to run."""
    analysed: set[str] = field(default_factory=lambda: {BASE.digest})
    served: set[str] = field(default_factory=lambda: {BASE.digest})
    took_requests: set[str] = field(default_factory=set)
    """Digests that served from a pod which was ready."""
    gone_back_to: set[str] = field(default_factory=set)
    """Versions that an operator went back to, and that nobody has released or left since."""

    def __post_init__(self) -> None:
        self.registry = MemoryRegistry({version: adapter.digest for version, adapter in ADAPTERS.items()})
        self.store = MemoryStore()
        self.ledger = Ledger(self.store)
        super().__post_init__()

    def tick(self) -> None:
        self.now += 1.0
        self.num_ticks += 1
        super().tick()
        self.serve()

    def tick_in_company(self, writes: int, *actions: tuple[Any, ...]) -> None:
        """A tick between two of whose writes others act."""
        countdown = iter(range(writes, -1000, -1))

        def between(write: str, made: Any) -> None:
            if next(countdown, -1) == 0:
                for action in actions:
                    act(self, action)

        self.cluster.on_write.append(between)
        self.tick()
        self.cluster.on_write.remove(between)

    def settle(self) -> None:
        super().settle()
        self.serve()

    def serve(self) -> None:
        """Requests come all the time, and go by the route to the pods that are up."""
        for arm, share in ((NAME, 1), (f"{NAME}-primary", 0)):
            found = self.cluster.get("Deployment", arm)
            route = self.cluster.get("HTTPRoute", NAME)
            if found and route and found["status"].get("availableReplicas"):
                weight = route["spec"]["rules"][0]["backendRefs"][share]["weight"]
                self.took_requests |= {_digest(found)} if weight else set()

    def sync_deployment(self) -> None:
        made = copy.deepcopy(DEPLOYMENT)
        made["spec"]["template"]["spec"]["containers"][0]["image"] = f"router:{self.image}"
        self.manifests = replace(self.manifests, deployment=made)
        super().sync_deployment()

    def sync_canary(self) -> None:
        made = copy.deepcopy(CANARY)
        made["spec"]["service"]["hosts"] = [f"host-{self.hosts}"]
        self.manifests = replace(self.manifests, canary=made)
        super().sync_canary()

    def create_primary(self) -> None:
        super().create_primary()
        self.served.add(_digest(self._get("Deployment", f"{NAME}-primary")))

    def promote(self) -> None:
        super().promote()
        self.served.add(_digest(self._get("Deployment", f"{NAME}-primary")))

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        if hook.type == self.sync_at:
            self.sync_at = ""
            self.sync()
        if hook.type == "post-rollout":
            return True
        is_stale = self.seen_at < self.num_ticks - 1
        return self.view is not None and not is_stale and answer(hook.type, self.view, LIMITS).is_yes

    def world(self, holder: str) -> Targets:
        return Targets(
            store=self.store,
            ledger=Ledger(self.store),
            cluster=self,
            values=self.git,
            registry=self.registry,
            model="adapter",
            gate_state=dict,
            holder=holder,
            lease_s=LEASE_S,
            clock=lambda: self.now,
        )

    def restart_gate(self) -> None:
        self.view = None

    def gate_looks(self) -> None:
        seen = self.seen()
        if seen is None:
            return  # it knows what it knew
        records = self.ledger.records()
        opened = open_request(records)
        is_judged = (
            opened is not None
            and seen.phase in ANALYSING
            and (seen.target, seen.primary) == (opened.adapter, opened.baseline or BASE)
        )
        if opened is not None and is_judged:
            if seen.is_target_up or seen.weight == 0:
                TrafficLog(self.store, opened.seq).observe(self.now, seen.weight)
            self.judged = opened.seq
        if opened is not None and opened.seq == self.judged and self.verdict == "pass":
            self.analysed.add(opened.adapter.digest)  # votes may come of age after the run
        votes = {"primary": Tally(9, 5), "canary": Tally(9, 5)}
        evidence = Evidence(
            votes=votes,
            harm=0,
            non_inferiority=0,
            srm_log_e=0,
            vote_srm_log_e=0,
            bound=3,
            decision=self.verdict,
            why="scripted",
        )
        self.seen_at = self.num_ticks
        self.view = GateView(
            phase=seen.phase,
            target=seen.target.digest,
            primary=seen.primary.digest,
            weight=seen.weight,
            is_target_up=seen.is_target_up,
            request=opened,
            quarantined=frozenset(quarantined(records)),
            is_aborted=opened is not None and is_aborted(records, opened),
            evidence=evidence if opened and opened.seq == self.judged else None,
            num_steps=1,
            minutes=0.0,
        )

    def ask_release(self, version: str) -> None:
        adapter, seen = ADAPTERS[version], self.seen()
        if seen is None or adapter.digest in quarantined(self.ledger.records()) or adapter == seen.primary:
            return
        entry = LedgerEntry(
            event="requested",
            at=self.now,
            who="t",
            adapter=adapter,
            baseline=seen.primary,
            verdict="pass",
            applied_spec=seen.last_applied_spec,
            condition_at=seen.condition_at,
        )
        if request(self.ledger, entry) is not None:
            self.gone_back_to.discard(version)

    def seen(self) -> ClusterSnapshot | None:
        """What runs; None while an object is missing."""
        try:
            return self.look()
        except ClusterUnavailable:
            return None

    def name_in_git(self) -> None:
        opened = open_request(self.ledger.records())
        if opened and not opened.restores:
            self.git.name_once(first_values(opened), "Release", run_id(self.canary, opened))

    def go_back(self, version: str) -> None:
        seen = self.seen()
        try:
            back = seen and request_rollback(self.ledger, seen, version, "t", self.now, "users complain")
        except UserError:
            return
        if back:
            self.analysed.add(back.adapter.digest)
            self.gone_back_to.discard(back.baseline.version)
            self.gone_back_to.add(back.adapter.version)

    def readiness_of(self, arm: str, readiness: Readiness) -> None:
        self.readiness[arm] = readiness

    def new_image(self) -> None:
        self.image += 1

    def new_hosts(self) -> None:
        self.hosts += 1

    def route(self, is_accepted: bool) -> None:
        self.is_route_accepted = is_accepted

    def delete_primary(self) -> None:
        self.cluster.delete("Deployment", f"{NAME}-primary")

    def scale(self, replicas: int) -> None:
        self.cluster.update("Deployment", NAME, lambda stored: stored["spec"].update(replicas=replicas))

    def abort(self) -> None:
        request_abort(self.ledger, "t", self.now, "stop")

    def reconcile(self, holder: str = "a") -> ReconcileResult:
        self.now += LEASE_S / 4
        return self._pass(self.world(holder))

    def _pass(self, targets: Targets) -> ReconcileResult:
        """A pass, which nothing may stop but an object that is missing."""
        done = reconcile(targets, self.now)
        assert not done.is_blocked or "get query error: not found" in done.action.why, done.action.why
        return done

    def reconcile_in_company(self, calls: int, *actions: tuple[Any, ...]) -> None:
        """A pass during which, before one of its calls to any place, others act."""
        targets, countdown = self.world("a"), iter(range(calls, -1000, -1))

        class Watched:
            def __init__(self, place: Any) -> None:
                self.place = place

            def __getattr__(self, name: str) -> Any:
                if callable(found := getattr(self.place, name)) and next(countdown) == 0:
                    for action in actions:
                        act(universe, action)
                return found

        universe = self
        ledger, cluster = Ledger(Watched(self.store)), cast(Any, Watched(self))
        self.now += LEASE_S / 4
        self._pass(
            replace(targets, ledger=ledger, cluster=cluster, values=Watched(self.git), registry=Watched(self.registry))
        )

    def reconcile_interrupted(self, writes: int, takes_over: bool) -> None:
        """A pass that stops before one of its writes: killed there, or asleep while another does the work."""
        self.now += LEASE_S / 4
        targets, countdown = self.world("a"), iter(range(writes, -1000, -1))

        def interrupt() -> None:
            if next(countdown) == 0:
                if not takes_over:
                    raise Killed
                self.now += 2 * LEASE_S
                for _ in range(2):
                    self.reconcile("b")

        class Interrupted:
            def __init__(self, place: Any) -> None:
                self.place = place

            def __getattr__(self, name: str) -> Any:
                if name.startswith(("write", "set", "delete", "create")):
                    interrupt()
                return getattr(self.place, name)

        # The fence is outside: it is asked first, then we fall asleep on the way to the write before.
        ledger = Ledger(Interrupted(self.store))
        slow = replace(targets, ledger=ledger, values=Interrupted(self.git), registry=Interrupted(self.registry))
        try:
            self._pass(slow)
        except Killed:
            self.now += 2 * LEASE_S

    def check(self) -> None:
        champion = self.registry.aliases.get("champion")
        digest = ADAPTERS[champion].digest if champion else BASE.digest
        assert digest in self.analysed, "promoted without analysis"
        assert digest in self.served, "champion never served"
        away = {version for version, tags in self.registry.tags.items() if tags.get("quarantined") == "true"}
        assert all(ADAPTERS[version].digest in self.took_requests for version in away), "quarantined, and never ran"
        assert not away & self.gone_back_to, "quarantined by going back to it"


def _digest(deployment: Any) -> str:
    return str(deployment["spec"]["template"]["metadata"]["annotations"]["ratchet.dev/adapter-digest"])


def act(universe: Universe, action: tuple[Any, ...]) -> None:
    name, *arguments = action
    if name == "verdict":
        universe.verdict = arguments[0]
    elif name == "push":
        seen = universe.seen()
        universe.git.push({"stray": STRAY, "primary": seen.primary if seen else BASE}[arguments[0]])
    elif name == "sync during":
        universe.sync_at = arguments[0]
    elif name == "restart_gate":
        universe.view = None
    else:
        getattr(universe, name)(*arguments)
    universe.check()


def calm_down(universe: Universe) -> None:
    """No more trouble: everything is up, and everybody does their part, again and again."""
    universe.readiness = dict.fromkeys(universe.readiness, Readiness.READY)
    universe.is_route_accepted = True
    universe.verdict = "fail" if universe.verdict == "undecided" else universe.verdict
    universe.now += 3 * LEASE_S
    for _ in range(30):
        for action in ("name_in_git", "sync", "gate_looks", "tick", "gate_looks", "reconcile"):
            act(universe, (action,))


OTHERS = ("name_in_git", "sync", "sync_deployment", "sync_canary", "gate_looks", "reconcile")
COMPANY = st.lists(
    st.sampled_from([(name,) for name in OTHERS] * 2 + [("ask_release", "2"), ("ask_release", "3"), ("abort",)]),
    max_size=6,
)
ACTIONS = st.one_of(
    st.sampled_from(
        [(name,) for name in (*OTHERS, "tick", "tick", "reconcile")] * 4
        + [("abort",), ("restart_gate",), ("push", "primary"), ("push", "stray"), ("new_image",), ("new_hosts",)]
        + [("sync during", hook) for hook in ("confirm-promotion", "confirm-traffic-increase")]
        + [("route", False), ("route", True), ("delete_primary",), ("scale", 0), ("scale", 2)]
    ),
    st.tuples(st.just("verdict"), st.sampled_from(["pass", "fail", "undecided"])),
    st.tuples(st.just("ask_release"), st.sampled_from("123")),
    st.tuples(st.just("go_back"), st.sampled_from(["base", "1", "2"])),
    st.tuples(st.just("readiness_of"), st.sampled_from(["target", "primary"]), st.sampled_from(list(Readiness))),
    st.tuples(st.just("reconcile_interrupted"), st.integers(0, 6), st.booleans()),
    st.builds(lambda writes, others: ("tick_in_company", writes, *others), st.integers(0, 8), COMPANY),
    st.builds(
        lambda calls, others: ("reconcile_in_company", calls, *others),
        st.integers(0, 12),
        COMPANY.map(lambda others: [("tick",) if other == ("reconcile",) else other for other in others]),
    ),
)
ROUND = [("name_in_git",), ("sync",), ("gate_looks",), ("tick",), ("gate_looks",)]
PROMOTED = [("ask_release", "1"), ("verdict", "pass"), *ROUND * 9]


@example(PROMOTED)
@example([*PROMOTED, ("reconcile",), ("go_back", "base"), ("reconcile_interrupted", 0, False)])
@example([*PROMOTED, ("reconcile_interrupted", 3, True), ("ask_release", "2")])
@example([("ask_release", "1"), ("reconcile_in_company", 3, ("name_in_git",))])
@example([("ask_release", "1"), ("reconcile_in_company", 4, ("name_in_git",))])
@example([("ask_release", "1"), *ROUND * 4, ("push", "primary"), ("verdict", "pass"), *ROUND * 6])
@settings(max_examples=150)
@given(st.lists(ACTIONS, max_size=60))
def test_every_history_ends_where_all_places_agree(history: list[tuple[Any, ...]]) -> None:
    run(history)


@pytest.mark.slow  # the same, with thousands of longer histories
@settings(max_examples=5000)
@given(st.lists(ACTIONS, max_size=150))
def test_every_long_history_ends_where_all_places_agree(history: list[tuple[Any, ...]]) -> None:
    run(history)


def run(history: list[tuple[Any, ...]]) -> None:
    universe = Universe(Manifests(DEPLOYMENT, CANARY), MemoryGit(BASE))
    for action in history:
        act(universe, action)
    calm_down(universe)
    if open_request(universe.ledger.records()) is not None:  # a person was asked, and has a way to end it
        act(universe, ("abort",))
        calm_down(universe)
    _check_end(universe, {pushed for name, *rest in history if name == "push" for pushed in rest})


def _check_end(universe: Universe, pushed: set[str]) -> None:
    records, seen = universe.ledger.records(), universe.look()
    assert open_request(records) is None, "no way to its end"
    ends = [record for record in records if record.event in CLOSING]
    assert pushed or not any("somebody withdrew" in end.why for end in ends), "nobody did"
    if not ends or ends[-1].event == "refused":
        return  # a person was asked; `check` has seen that no alias moved
    assert seen.weight == 0
    assert universe.git.values.skip_analysis is seen.skip_analysis is False
    if "stray" in pushed:
        return  # somebody else's commit may stand in Git, and is theirs
    assert universe.git.adapter == seen.target == seen.primary
    champion = universe.registry.aliases.get("champion")
    assert (ADAPTERS[champion] if champion else BASE) == seen.primary


def test_a_quarantined_version_is_not_gone_back_to() -> None:
    universe = Universe(Manifests(DEPLOYMENT, CANARY), MemoryGit(BASE))
    for action in [*PROMOTED, ("reconcile",), ("go_back", "base")]:
        act(universe, action)
    calm_down(universe)
    assert universe.look().primary == BASE
    assert universe.registry.aliases.get("champion") is None
    assert universe.registry.tags["1"]["quarantined"] == "true"
    with pytest.raises(UserError, match="quarantined"):
        request_rollback(universe.ledger, universe.look(), "1", "t", 0.0, "")
    with pytest.raises(UserError, match="never served"):
        request_rollback(universe.ledger, universe.look(), "3", "t", 0.0, "")
    with pytest.raises(UserError, match="serves already"):
        request_rollback(universe.ledger, universe.look(), "base", "t", 0.0, "")
