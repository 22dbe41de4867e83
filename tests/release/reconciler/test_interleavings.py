"""Whatever happens in whatever order: a release ends where every place agrees, and only what was analysed is promoted.

The scheduler, the hooks, the ledger, the lease and the reconciler are the real ones. Git, MLflow and the object store
are fakes in memory, so that thousands of histories fit into a test.
"""

from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import UserError
from ratchet.rehearsal.canary_spec import Canary, Hook
from ratchet.rehearsal.flagger import Phase, Readiness
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
from ratchet.release.reconciler.actions import run_id
from ratchet.release.reconciler.reconcile import ReconcileResult, reconcile
from ratchet.release.reconciler.targets import Targets
from ratchet_pipelines.rehearse.memory import MemoryGit, MemoryRegistry, MemoryStore
from ratchet_pipelines.rehearse.virtual_cluster import VirtualCluster

BASE = AdapterRef()
ADAPTERS = {v: AdapterRef(name="adapter", version=v, uri=f"lake/{v}", digest=v * 64) for v in "123"}
STRAY = AdapterRef(name="adapter", version="9", uri="lake/9", digest="9" * 64)
HOOK_TYPES = (
    "confirm-rollout",
    "pre-rollout",
    "rollback",
    "confirm-traffic-increase",
    "confirm-promotion",
    "post-rollout",
)
SPEC = Canary(
    name="adapter-router", namespace="test", target="adapter-router", threshold=2, step_weights=(20, 50), max_weight=50,
    hooks=tuple(Hook(kind, kind, "http://gate") for kind in HOOK_TYPES),
)  # fmt: skip
LIMITS = Limits(min_votes=0, max_minutes=1e9)
LEASE_S = 10.0


class Killed(Exception):
    """Stands for SIGKILL, or for a sleep so long that another took over."""


@dataclass
class Universe(VirtualCluster):
    """Everything a release touches, and everybody who touches it."""

    now: float = 0.0
    verdict: Any = "undecided"
    view: GateView | None = None
    sync_at: str = ""
    """A hook during which Argo CD syncs."""
    analysed: set[str] = field(default_factory=lambda: {BASE.digest})
    served: set[str] = field(default_factory=lambda: {BASE.digest})

    def __post_init__(self) -> None:
        self.registry = MemoryRegistry({version: adapter.digest for version, adapter in ADAPTERS.items()})
        self.store = MemoryStore()
        self.ledger = Ledger(self.store)
        super().__post_init__()

    def promote(self) -> None:
        super().promote()
        self.served.add(self.primary.digest)

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        if hook.type == self.sync_at:
            self.sync_at = ""
            self.sync()
        if hook.type == "post-rollout":
            return True
        return self.view is not None and answer(hook.type, self.view, LIMITS).is_yes

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
        records = self.ledger.records()
        opened = open_request(records)
        is_running = self.status.phase in ("Progressing", "WaitingPromotion")
        is_judged = (
            opened is not None
            and is_running
            and (self.target, self.primary) == (opened.adapter, opened.baseline or BASE)
        )
        if is_judged:
            TrafficLog(self.store, opened.seq).observe(self.now, self.weight)
        if is_judged and self.verdict == "pass":
            self.analysed.add(self.target.digest)
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
        self.view = GateView(
            phase=self.status.phase,
            target=self.target.digest,
            primary=self.primary.digest,
            weight=self.weight,
            request=opened,
            quarantined=frozenset(quarantined(records)),
            is_aborted=opened is not None and is_aborted(records, opened),
            evidence=evidence if is_judged else None,
            num_steps=1,
            minutes=0.0,
        )

    def ask_release(self, version: str) -> None:
        adapter = ADAPTERS[version]
        if adapter.digest in quarantined(self.ledger.records()) or adapter == self.primary:
            return
        entry = LedgerEntry(
            event="requested",
            at=self.now,
            who="t",
            adapter=adapter,
            baseline=self.primary,
            verdict="pass",
            applied_spec=self.status.last_applied_spec,
        )
        request(self.ledger, entry)

    def name_in_git(self) -> None:
        opened = open_request(self.ledger.records())
        if opened and not opened.restores:
            self.git.name_once(opened.adapter, "Release", run_id(self.canary, opened))

    def go_back(self, version: str) -> None:
        try:
            back = request_rollback(self.ledger, self.look(), version, "t", self.now, "users complain")
        except UserError:
            return
        self.analysed.add(back.adapter.digest)

    def abort(self) -> None:
        request_abort(self.ledger, "t", self.now, "stop")

    def reconcile(self, holder: str = "a") -> ReconcileResult:
        self.now += LEASE_S / 4
        return reconcile(self.world(holder), self.now)

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
        reconcile(
            replace(targets, ledger=ledger, cluster=cluster, values=Watched(self.git), registry=Watched(self.registry)),
            self.now,
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
            reconcile(slow, self.now)
        except Killed:
            self.now += 2 * LEASE_S

    def check(self) -> None:
        champion = self.registry.aliases.get("champion")
        digest = ADAPTERS[champion].digest if champion else BASE.digest
        assert digest in self.analysed, "promoted without analysis"
        assert digest in self.served, "champion never served"


def act(universe: Universe, action: tuple[Any, ...]) -> None:
    name, *arguments = action
    if name == "verdict":
        universe.verdict = arguments[0]
    elif name == "readiness":
        universe.readiness[arguments[0]] = arguments[1]
    elif name == "push":
        universe.git.push({"stray": STRAY, "primary": universe.primary}[arguments[0]])
    elif name == "sync during":
        universe.sync_at = arguments[0]
    else:
        getattr(universe, name)(*arguments)
    universe.check()


def settle(universe: Universe) -> None:
    """No more trouble: everything is up, and everybody does their part, again and again."""
    universe.readiness = dict.fromkeys(universe.readiness, Readiness.READY)
    universe.verdict = "fail" if universe.verdict == "undecided" else universe.verdict
    universe.now += 3 * LEASE_S
    for _ in range(25):
        for action in ("name_in_git", "sync", "gate_looks", "tick", "gate_looks", "reconcile"):
            act(universe, (action,))


OTHERS = ("name_in_git", "sync", "gate_looks", "tick")
COMPANY = st.lists(
    st.sampled_from([(name,) for name in OTHERS] * 2 + [("ask_release", "2"), ("ask_release", "3"), ("abort",)]),
    max_size=6,
)
ACTIONS = st.one_of(
    st.sampled_from(
        [(name,) for name in (*OTHERS, "reconcile")] * 4
        + [("abort",), ("restart_flagger",), ("restart_gate",), ("push", "primary"), ("push", "stray")]
        + [("sync during", hook) for hook in ("confirm-promotion", "confirm-traffic-increase")]
    ),
    st.tuples(st.just("verdict"), st.sampled_from(["pass", "fail", "undecided"])),
    st.tuples(st.just("ask_release"), st.sampled_from("123")),
    st.tuples(st.just("go_back"), st.sampled_from(["base", "1", "2"])),
    st.tuples(st.just("readiness"), st.sampled_from(["target", "primary"]), st.sampled_from(list(Readiness))),
    st.tuples(st.just("reconcile_interrupted"), st.integers(0, 6), st.booleans()),
    st.builds(lambda calls, others: ("reconcile_in_company", calls, *others), st.integers(0, 12), COMPANY),
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
    universe = Universe(SPEC, MemoryGit(BASE))
    for action in history:
        act(universe, action)
    settle(universe)
    _check_end(universe, {pushed for name, *rest in history if name == "push" for pushed in rest})


def _check_end(universe: Universe, pushed: set[str]) -> None:
    records = universe.ledger.records()
    if open_request(records) is not None:
        assert (universe.status.phase, universe.status.canary_weight) == ("Failed", 100), "open, and nobody is paged"
        return
    ends = [record for record in records if record.event in CLOSING]
    assert pushed or not any("somebody withdrew" in end.why for end in ends), "nobody did"
    if not ends or ends[-1].event == "refused":
        return  # a person was asked; `check` has seen that no alias moved
    assert universe.weight == 0
    assert universe.spec.skip_analysis is False
    if "stray" in pushed:
        return  # somebody else's commit may stand in Git, and is theirs
    assert universe.git.adapter == universe.target == universe.primary
    champion = universe.registry.aliases.get("champion")
    assert (ADAPTERS[champion] if champion else BASE) == universe.primary
    if ends[-1].event == "rolled_back" and ends[-1].adapter != BASE:
        assert universe.registry.tags[ends[-1].adapter.version]["quarantined"] == "true"


def test_a_quarantined_version_is_not_gone_back_to() -> None:
    universe = Universe(SPEC, MemoryGit(BASE))
    for action in [*PROMOTED, ("reconcile",), ("go_back", "base")]:
        act(universe, action)
    settle(universe)
    assert universe.primary == BASE
    assert universe.registry.aliases.get("champion") is None
    assert universe.registry.tags["1"]["quarantined"] == "true"
    with pytest.raises(UserError, match="quarantined"):
        request_rollback(universe.ledger, universe.look(), "1", "t", 0.0, "")
    with pytest.raises(UserError, match="never served"):
        request_rollback(universe.ledger, universe.look(), "3", "t", 0.0, "")
    with pytest.raises(UserError, match="serves already"):
        request_rollback(universe.ledger, universe.look(), "base", "t", 0.0, "")
