"""A reconciler that is killed before a write: wrappers in front of store, Git and registry that count the writes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.adapter_ref import AdapterRef
from ratchet.registry.aliases import ModelVersion, RegisteredModel, Registry
from ratchet.release.ledger import Ledger
from ratchet.release.reconciler.gitops import Commit, DecideValues, ReleaseValues, Values
from ratchet.release.reconciler.targets import Targets
from ratchet.store import Store


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


@dataclass
class Countdown:
    """Lets `writes_left` writes pass, and kills at the next one."""

    writes_left: int

    def write(self) -> None:
        self.writes_left -= 1
        if self.writes_left < 0:
            raise Killed


def killed_before_write(targets: Targets, num_writes: int) -> Targets:
    """Return the same targets for a process that dies before its write number `num_writes`, counted from 0.

    Counted are writes to ledger, Git and registry. The lease is taken beforehand, in the store itself.
    """
    countdown = Countdown(num_writes)
    return replace(
        targets,
        ledger=Ledger(KilledStore(targets.store, countdown)),
        values=KilledValues(targets.values, countdown),
        registry=KilledRegistry(targets.registry, countdown),
    )


@dataclass(frozen=True)
class KilledRegistry:
    """A `Registry` whose writes count."""

    registry: Registry
    countdown: Countdown

    def get_registered_model(self, name: str) -> RegisteredModel:
        return self.registry.get_registered_model(name)

    def get_model_version(self, name: str, version: str) -> ModelVersion:
        return self.registry.get_model_version(name, version)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.countdown.write()
        self.registry.set_model_version_tag(name, version, key, value)

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.countdown.write()
        self.registry.set_registered_model_alias(name, alias, version)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.countdown.write()
        self.registry.delete_registered_model_alias(name, alias)


@dataclass(frozen=True)
class KilledValues:
    """A values file whose writes count."""

    values: Values
    countdown: Countdown

    def read_adapter(self) -> AdapterRef:
        return self.values.read_adapter()

    def look(self, run: str) -> tuple[ReleaseValues, bool]:
        return self.values.look(run)

    def name_once(self, values: ReleaseValues, subject: str, run: str) -> Commit:
        self.countdown.write()
        return self.values.name_once(values, subject, run)

    def write(self, decide: DecideValues, subject: str, run: str, mark: bool = False) -> Commit:
        self.countdown.write()
        return self.values.write(decide, subject, run, mark)


class KilledStore(Store):
    """A store whose writes count, as far as the ledger writes."""

    def __init__(self, store: Store, countdown: Countdown) -> None:
        self.store, self.countdown, self.root = store, countdown, store.root

    def read(self, key: str) -> bytes:
        return self.store.read(key)

    def exists(self, key: str) -> bool:
        return self.store.exists(key)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return self.store.list(prefix, after)

    def create(self, key: str, data: bytes) -> None:
        self.countdown.write()
        self.store.create(key, data)

    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        self.countdown.write()
        self.store.replace(key, data, expected)

    def put_tree(self, folder: Path, key: str) -> None:
        self.countdown.write()
        self.store.put_tree(folder, key)

    def remove(self, key: str) -> None:
        self.countdown.write()
        self.store.remove(key)

    def local(self, key: str) -> Path:
        return self.store.local(key)

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        return self.store.delta_uri(key)
