"""Guards in front of what a release writes to: only the holder of the reconciler's lease gets through."""

from collections.abc import Callable
from dataclasses import dataclass

from ratchet.lease import is_held
from ratchet.registry.aliases import RegistryWriter
from ratchet.release.reconciler.gitops import Commit, DecideValues, ReleaseValues, ValuesWriter
from ratchet.store import Store


class LeaseLost(Exception):
    """Another process holds the lease now, and completes the work."""


@dataclass(frozen=True, kw_only=True)
class LeaseGuard:
    """Allow writes only while this process holds the lease.

    Check-then-act: a write in flight when the lease expires still lands (MLflow has no compare-and-swap). Git and the
    ledger refuse such a write by themselves.
    """

    store: Store
    lease: str
    holder: str
    clock: Callable[[], float]

    def check(self) -> None:
        """Raise LeaseLost unless the lease is ours now, however long we slept since we took it."""
        if not is_held(self.store, self.lease, self.holder, self.clock()):
            raise LeaseLost("the lease is not ours any more")


@dataclass(frozen=True)
class GuardedRegistry:
    """A `RegistryWriter` that checks the lease before each write."""

    registry: RegistryWriter
    guard: LeaseGuard

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.guard.check()
        self.registry.set_model_version_tag(name, version, key, value)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.guard.check()
        self.registry.set_registered_model_alias(name, alias, version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.guard.check()
        self.registry.delete_registered_model_alias(name, alias)


@dataclass(frozen=True)
class GuardedValues:
    """A `ValuesWriter` that checks the lease before each write."""

    values: ValuesWriter
    guard: LeaseGuard

    def name_once(self, values: ReleaseValues, subject: str, run: str) -> Commit:
        self.guard.check()
        return self.values.name_once(values, subject, run)

    def write(self, decide: DecideValues, subject: str, run: str, mark: bool = False) -> Commit:
        self.guard.check()
        return self.values.write(decide, subject, run, mark)
