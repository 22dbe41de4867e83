"""Stand-ins at the edges, in memory: an object store, a Git server with one values file, an MLflow server."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

from ratchet.adapter_ref import AdapterRef
from ratchet.errors import Conflict, UserError
from ratchet.release.reconciler.gitops import Commit
from ratchet.store import Store


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
        raise NotImplementedError("a store in memory holds no folders")

    def remove(self, key: str) -> None:
        for found in [key, *self.list(key)]:
            self.objects.pop(found, None)

    def local(self, key: str) -> Path:
        raise NotImplementedError("an object in memory has no path")

    def delta_uri(self, key: str) -> tuple[str, dict[str, str]]:
        raise NotImplementedError("a store in memory holds no Delta tables")


class MemoryGit:
    """One branch with one values file; every write is a commit."""

    def __init__(self, adapter: AdapterRef) -> None:
        self.adapter, self.skip_analysis = adapter, False
        self.runs: list[str] = []

    def read_adapter(self) -> AdapterRef:
        return self.adapter

    def look(self, run: str) -> tuple[AdapterRef, bool]:
        return self.adapter, run in self.runs

    def name_once(self, adapter: AdapterRef, subject: str, run: str) -> Commit:
        return self.write_adapter(lambda named: None if run in self.runs else adapter, subject, run)

    def write_adapter(
        self,
        decide: Callable[[AdapterRef], AdapterRef | None],
        subject: str,
        run: str,
        skip_analysis: bool | None = None,
        mark: bool = False,
    ) -> Commit:
        before = self.adapter, self.skip_analysis
        self.adapter = decide(self.adapter) or self.adapter
        if skip_analysis is not None:
            self.skip_analysis = skip_analysis
        is_new = (self.adapter, self.skip_analysis) != before or (mark and run not in self.runs)
        self.runs += [run] if is_new else []
        return Commit(f"commit-{len(self.runs)}", is_new)


class MemoryRegistry:
    """One registered model: versions' tags, and aliases."""

    def __init__(self, digests: dict[str, str]) -> None:
        self.tags = {version: {"adapter_digest": digest} for version, digest in digests.items()}
        self.aliases: dict[str, str] = {}

    def get_registered_model(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(aliases=dict(self.aliases))

    def get_model_version(self, name: str, version: str) -> SimpleNamespace:
        return SimpleNamespace(version=version, tags=dict(self.tags[version]))

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        self.tags[version][key] = value

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        assert version in self.tags
        self.aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        self.aliases.pop(alias, None)
