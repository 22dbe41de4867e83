"""Every way to write that a port has is refused once the lease is lost, and counted where a rehearsal kills."""

import inspect
from typing import Any

import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.lease import acquire
from ratchet.registry.aliases import RegistryWriter
from ratchet.release.ledger import Ledger
from ratchet.release.reconciler.gitops import ReleaseValues, ValuesWriter
from ratchet.release.reconciler.lease_guard import GuardedRegistry, GuardedValues, LeaseGuard, LeaseLost
from ratchet.release.reconciler.targets import LEASE, Targets
from ratchet_pipelines.rehearse.killed_writes import Killed, killed_before_write
from ratchet_pipelines.rehearse.memory import MemoryGit, MemoryRegistry, MemoryStore

LEASE_S = 10.0
NEW = AdapterRef(name="adapter", version="1", uri="lake/1", digest="1" * 64)
ARGUMENTS: dict[str, Any] = {
    "name": "adapter", "version": "1", "key": "quarantined", "value": "true", "alias": "challenger",
    "values": ReleaseValues(NEW), "subject": "Release", "run": "run/1", "decide": lambda now: ReleaseValues(NEW),
}  # fmt: skip


def methods_of(protocol: type) -> list[str]:
    """Read from the Protocol, so that a method that is added there is tested, guarded or not."""
    return [name for name, member in vars(protocol).items() if inspect.isfunction(member) and not name.startswith("_")]


WRITES = [("registry", name) for name in methods_of(RegistryWriter)] + [("values", n) for n in methods_of(ValuesWriter)]


def call(port: object, method: str) -> object:
    """Call a write with plausible arguments by name; a parameter with a default keeps it."""
    write = getattr(port, method)
    wanted = [name for name, given in inspect.signature(write).parameters.items() if given.default is given.empty]
    return write(**{name: ARGUMENTS[name] for name in wanted})


@pytest.fixture
def targets() -> Targets:
    store = MemoryStore()
    registry = MemoryRegistry({"0": "0" * 64, "1": NEW.digest})
    registry.aliases["challenger"] = "0"
    return Targets(
        store=store,
        ledger=Ledger(store),
        cluster=None,  # type: ignore[arg-type]
        values=MemoryGit(AdapterRef()),
        registry=registry,
        model="adapter",
        gate_state=dict,
        holder="we",
        lease_s=LEASE_S,
        clock=lambda: 0.0,
    )


def what_is_written(targets: Targets) -> tuple[object, ...]:
    registry, values = targets.registry, targets.values
    assert isinstance(registry, MemoryRegistry)
    assert isinstance(values, MemoryGit)
    return dict(registry.aliases), {version: dict(tags) for version, tags in registry.tags.items()}, values.text


def test_the_protocols_name_the_writes() -> None:
    assert len(WRITES) == 5


@pytest.mark.parametrize(("port", "method"), WRITES)
def test_the_holder_of_the_lease_writes(targets: Targets, port: str, method: str) -> None:
    assert acquire(targets.store, LEASE, "we", 0.0, LEASE_S)
    before = what_is_written(targets)
    call(getattr(targets.guarded(), port), method)
    assert what_is_written(targets) != before


@pytest.mark.parametrize(("port", "method"), WRITES)
@pytest.mark.parametrize("taken_over", [True, False], ids=["taken over", "expired"])
def test_no_write_passes_once_the_lease_is_lost(targets: Targets, port: str, method: str, taken_over: bool) -> None:
    assert acquire(targets.store, LEASE, "they" if taken_over else "we", -20.0, 30.0 if taken_over else LEASE_S)
    before = what_is_written(targets)
    with pytest.raises(LeaseLost):
        call(getattr(targets.guarded(), port), method)
    assert what_is_written(targets) == before


@pytest.mark.parametrize(("port", "method"), WRITES)
def test_a_killed_reconciler_is_killed_before_any_kind_of_write(targets: Targets, port: str, method: str) -> None:
    before = what_is_written(targets)
    with pytest.raises(Killed):
        call(getattr(killed_before_write(targets, 0), port), method)
    assert what_is_written(targets) == before
    call(getattr(killed_before_write(targets, 1), port), method)


def test_guards_hold_nothing_but_the_writes() -> None:
    assert set(methods_of(GuardedRegistry)) == set(methods_of(RegistryWriter))
    assert set(methods_of(GuardedValues)) == set(methods_of(ValuesWriter))
    assert methods_of(LeaseGuard) == ["check"]
