"""Lineage by reading manifests: what a result was made from, back to the first step."""

from collections.abc import Iterable

from ratchet.manifest import Manifest
from ratchet.step import read_manifest
from ratchet.store import Store


def all_manifests(store: Store) -> list[Manifest]:
    """Every published manifest, oldest first."""
    found = [read_manifest(store, uri) for uri in store.list("manifests") if uri.endswith(".json")]
    return sorted(found, key=lambda manifest: (manifest.created_at, manifest.key))


def ancestry(last: Manifest, manifests: Iterable[Manifest]) -> list[Manifest]:
    """`last` and everything that it was made from, sources first, each once."""
    by_digest = {manifest.digest: manifest for manifest in manifests}
    ordered: dict[str, Manifest] = {}

    def visit(manifest: Manifest) -> None:
        for digest in manifest.inputs.values():
            if digest in by_digest:
                visit(by_digest[digest])
        ordered.setdefault(manifest.digest, manifest)

    visit(last)
    return list(ordered.values())
