"""The scheduler model beside recordings of Flagger itself; and the gate and the reconciler along them.

A few recordings are kept here, the others beside the checkout: every one of them has to come out the same, write by
write.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ratchet.adapter_ref import PREFIX, AdapterRef
from ratchet.config import Config
from ratchet.release.gate.state import GateState
from ratchet.release.ledger import Ledger, LedgerEntry, LedgerRecord, open_request, quarantined, request
from ratchet.release.reconciler.actions import first_values, run_id
from ratchet.release.reconciler.kubernetes import ClusterSnapshot, ClusterUnavailable, snapshot_of
from ratchet.release.reconciler.reconcile import reconcile
from ratchet.release.reconciler.targets import Targets
from ratchet_pipelines.rehearse.memory import MemoryGit, MemoryRegistry, MemoryStore
from rehearsal import replay
from rehearsal.replay import Recording, Script

KEPT = sorted((Path(__file__).parent / "recordings").glob("*.jsonl"))
BESIDE = Path(__file__).resolve().parents[3] / "shared" / "cases" / "flagger"


@pytest.fixture(scope="module")
def all_recordings() -> list[Recording]:
    if not BESIDE.is_dir():
        pytest.skip(f"no further recordings beside the checkout: {BESIDE} is absent")
    return [recording for path in sorted(BESIDE.glob("*.jsonl*")) for recording in replay.read(path)]


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_the_model_does_what_flagger_did(path: Path) -> None:
    for recording in replay.read(path):
        assert replay.play(recording) == []


def test_the_model_does_what_flagger_did_in_every_recording(all_recordings: list[Recording]) -> None:
    assert len(all_recordings) > 700
    different = {recording.name: found for recording in all_recordings if (found := replay.play(recording))}
    assert different == {}


def changes(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the place of every leaf in a tick."""
    if isinstance(value, dict | list) and value:
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from changes(value[key], (*place, key))
    else:
        yield place


def test_whatever_differs_from_a_recording_is_told() -> None:
    [recording] = replay.read(KEPT[-1])
    for number, turn in enumerate(recording.ticks):
        for *place, last in changes({key: turn[key] for key in ("state", "steps", "calls")}):
            ticks = copy.deepcopy(list(recording.ticks))
            inner: Any = ticks[number]
            for key in place:
                inner = inner[key]
            inner[last] = "another"
            assert replay.play(Recording(recording.header, tuple(ticks))), (number, place, last)


def test_a_replay_of_files_tells_its_count_and_fails_if_anything_differs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert replay.main([str(KEPT[0])]) == 0
    broken = tmp_path / "broken.jsonl"
    broken.write_text(KEPT[0].read_text().replace("Progressing", "Succeeded"))
    assert replay.main([str(KEPT[0]), str(broken)]) == 1
    assert capsys.readouterr().out.endswith("1 of 2 recordings equal\n")
    assert replay.main([]) == 1


# The gate and the reconciler along a recording.

CANDIDATES = [f"B{number}" for number in range(1, 12)] + ["B", "C", "C-nonce", "D", "A-nonce"]
ADAPTERS = {
    letter: AdapterRef(name="adapter", version=str(number), uri=f"lake/{letter}", digest=f"{number:064x}")
    for number, letter in enumerate(CANDIDATES, 1)
} | {"A": AdapterRef()}


@dataclass
class Along:
    """A release for each revision that the recording pushes, and gate and reconciler after every single write."""

    script: Script
    git: MemoryGit = field(default_factory=lambda: MemoryGit(AdapterRef()))
    took_requests: set[str] = field(default_factory=set)
    served: set[str] = field(default_factory=lambda: {AdapterRef().digest})
    num_looks: int = 0
    canary: str = replay.NAME

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.registry = MemoryRegistry({ref.version: ref.digest for ref in ADAPTERS.values() if not ref.is_base})
        config = Config.model_validate({"release_adapter": {"canary": self.canary, "namespace": "test"}})
        self.gate = GateState(config, self.store, self)

    def look(self) -> ClusterSnapshot:
        kinds = (("Canary", replay.NAME), ("Deployment", replay.NAME), ("Deployment", replay.PRIMARY))
        found = [self.script.cluster.get(kind, name) for kind, name in (*kinds, ("HTTPRoute", replay.NAME))]
        if None in found:
            raise ClusterUnavailable("an object is missing")
        canary, target, primary, route = (copy.deepcopy(each) for each in found)
        for deployment in (target, primary):
            adapter = ADAPTERS[replay._letter(deployment)]
            annotations = {PREFIX + key: value for key, value in adapter.model_dump().items()}
            deployment["spec"]["template"]["metadata"]["annotations"] = annotations
        return snapshot_of(canary, target, primary, route)

    def after_a_write(self, script: Script) -> None:
        try:
            seen = self.look()
        except ClusterUnavailable:
            return
        self.num_looks += 1
        self._follow(seen)
        self.gate.refresh(float(self.num_looks))
        before = Ledger(self.store).records()
        assert not reconcile(self._targets(), float(self.num_looks)).is_blocked
        records = Ledger(self.store).records()
        assert quarantined(records) <= self.took_requests, "quarantined, and never took a request"
        if len(records) > len(before) and records[-1].event == "rolled_back":
            assert seen.phase == "Failed", "rolled back, and Flagger has not"
            assert seen.condition_at != before[-1].condition_at, "of the release before"
        champion = self.registry.aliases.get("champion")
        assert champion is None or {ref.version: ref.digest for ref in ADAPTERS.values()}[champion] in self.served

    def _follow(self, seen: ClusterSnapshot) -> None:
        """Ask for what the recording has pushed, and note who serves."""
        if seen.is_target_up and seen.weight:
            self.took_requests.add(seen.target.digest)
        self.served.add(seen.primary.digest)
        opened = open_request(Ledger(self.store).records())
        if opened is None and seen.target != seen.primary and seen.target.digest not in self.asked():
            entry = LedgerEntry(
                event="requested",
                at=0.0,
                who="t",
                adapter=seen.target,
                baseline=seen.primary,
                verdict="pass",
                applied_spec=seen.last_applied_spec,
                condition_at=seen.condition_at,
            )
            opened = request(Ledger(self.store), entry)
            assert opened
            self.git.name_once(first_values(opened), "Release", run_id(self.canary, opened))
        if seen.target != self.git.adapter:  # the recording goes on, whatever the reconciler has named
            self.git.push(seen.target)

    def asked(self) -> set[str]:
        return {record.adapter.digest for record in self.records()}

    def records(self) -> list[LedgerRecord]:
        return Ledger(self.store).records()

    def _targets(self) -> Targets:
        return Targets(
            store=self.store,
            ledger=Ledger(self.store),
            cluster=self,
            values=self.git,
            registry=self.registry,
            model="adapter",
            gate_state=lambda: self.gate.state,
            holder="a",
            lease_s=1e9,
            clock=lambda: float(self.num_looks),
        )


def run_along(recording: Recording) -> Along:
    made: list[Along] = []

    def look(script: Script) -> None:
        if not made:
            made.append(Along(script))
        made[0].after_a_write(script)

    assert replay.play(recording, look) == [], "the reconciler must not move the cluster"
    return made[0]


@pytest.mark.parametrize("path", KEPT, ids=[path.stem for path in KEPT])
def test_whenever_they_look_gate_and_reconciler_do_no_harm(path: Path) -> None:
    [recording] = replay.read(path)
    assert run_along(recording).num_looks > 1


def test_whenever_they_look_gate_and_reconciler_do_no_harm_in_any_recording(all_recordings: list[Recording]) -> None:
    ends = [record.event for recording in all_recordings[::4] for record in run_along(recording).records()]
    assert {"requested", "promoted", "rolled_back"} <= set(ends)


def test_a_run_that_is_recorded_is_promoted_at_its_end_and_never_before() -> None:
    [recording] = replay.read(Path(__file__).parent / "recordings" / "promotion-every-step-on-its-own-tick.jsonl")
    assert [record.event for record in run_along(recording).records()] == ["requested", "promoted"]
