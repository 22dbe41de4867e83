"""In-memory fakes of the services that a release writes to: object store, Git with one values file, MLflow."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import Conflict, UserError
from ratchet.release.reconciler.gitops import Commit, DecideValues, ReleaseValues, values_in, with_values
from ratchet.store import Store

VALUES = """\
adapter:
  name: base
  version: "0"
  uri: ""
  digest: base
"""


class MemoryStore(Store):
    """Objects by key in memory. Folders and Delta tables are not supported: they need a path."""

    def __init__(self) -> None:
        self.root = "memory"
        self.objects: dict[str, bytes] = {}

    def read(self, key: str) -> bytes:
        if key not in self.objects:
            raise UserError(f"{key} does not exist")
        return self.objects[key]

    def exists(self, key: str) -> bool:
        return key in self.objects or any(known.startswith(f"{key}/") for known in self.objects)

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self.objects if key.startswith(f"{prefix}/") and key > after))

    def create(self, key: str, data: bytes) -> None:
        if key in self.objects:
            raise Conflict(key)
        self.objects[key] = data

    def replace(self, key: str, data: bytes, expected: bytes) -> None:
        if self.objects.get(key) != expected:
            raise Conflict(key)
        self.objects[key] = data

    def put_tree(self, folder: Path, key: str) -> None:
        raise NotImplementedError("MemoryStore holds no folders")

    def remove(self, key: str) -> None:
        for removed in [key, *self.list(key)]:
            self.objects.pop(removed, None)

    def local(self, key: str) -> Path:
        raise NotImplementedError("MemoryStore has no paths")

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        raise NotImplementedError("MemoryStore holds no tables")


class MemoryGit:
    """One branch with one values file; every write is a commit. The file's text changes as in real Git."""

    PATH = "values.yaml"

    def __init__(self, adapter: AdapterRef) -> None:
        self.text, self.runs = VALUES, list[str]()
        self.values = values_in(VALUES, self.PATH)
        self.push(adapter)

    @property
    def adapter(self) -> AdapterRef:
        return self.values.adapter

    def read_adapter(self) -> AdapterRef:
        return self.values.adapter

    def look(self, run: str) -> tuple[ReleaseValues, bool]:
        return self.values, run in self.runs

    def push(self, adapter: AdapterRef) -> None:
        """Name `adapter` in a commit of no release, as a person would."""
        self._commit(replace(self.values, adapter=adapter))

    def name_once(self, values: ReleaseValues, subject: str, run: str) -> Commit:
        return self.write(lambda now: now if run in self.runs else values, subject, run)

    def write(self, decide: DecideValues, subject: str, run: str, mark: bool = False) -> Commit:
        wanted = decide(self.values)
        is_new = wanted != self.values or (mark and run not in self.runs)
        self._commit(wanted)
        self.runs += [run] if is_new else []
        return Commit(f"commit-{len(self.runs)}", is_new)

    def _commit(self, wanted: ReleaseValues) -> None:
        if wanted != self.values:  # parsed once for each commit: the file is read far more often
            self.text = with_values(self.text, wanted, self.PATH)
            self.values = values_in(self.text, self.PATH)


@dataclass(frozen=True)
class MemoryModel:
    """A registered model as its readers need it."""

    aliases: dict[str, str]


@dataclass(frozen=True)
class MemoryVersion:
    """A model version as its readers need it."""

    version: str
    tags: dict[str, str]


class MemoryRegistry:
    """One registered model: versions' tags, and aliases."""

    def __init__(self, digests: dict[str, str]) -> None:
        self.tags = {version: {"adapter_digest": digest} for version, digest in digests.items()}
        self.aliases: dict[str, str] = {}

    def get_registered_model(self, name: str) -> MemoryModel:
        return MemoryModel(dict(self.aliases))

    def get_model_version(self, name: str, version: str) -> MemoryVersion:
        return MemoryVersion(version, dict(self.tags[version]))

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tags[version][key] = value

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        assert version in self.tags
        self.aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.aliases.pop(alias, None)
