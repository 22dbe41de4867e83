"""Lineage by reading manifests, both ways: what a result was made from, and what was made from it.

Manifests link steps by digest. Below a dataset its own index goes on: `feedback_index.parquet`, sorted by feedback id,
says which rows name each triplet, or why none does.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ratchet.errors import UserError
from ratchet.manifest import FEEDBACK_INDEX, Manifest
from ratchet.step import read_manifest
from ratchet.store import Store


class RowRef(BaseModel):
    """A row of a dataset's file that names a vote."""

    model_config = ConfigDict(frozen=True)

    file: str
    row: int


class Use(BaseModel):
    """What one dataset did with a vote, and what was made from that dataset."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    places: tuple[RowRef, ...]
    reason: str | None
    """Why no row names the vote; None if one does."""
    made: tuple[dict[str, Any], ...]


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


def descent(first: Manifest, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Everything that was made from `first`, directly or through others, oldest first."""
    digests, found = {first.digest}, []
    for manifest in sorted(manifests, key=lambda manifest: manifest.created_at):
        if digests & set(manifest.inputs.values()):
            digests.add(manifest.digest)
            found.append(manifest)
    return found


def where_used(store: Store, feedback_id: str) -> list[Use]:
    """What every dataset in the lake did with a vote, oldest dataset first; empty if none ever saw it."""
    manifests = all_manifests(store)
    uses: dict[str, Use] = {}
    for built in (manifest for manifest in manifests if manifest.step == "build_datasets"):
        dataset = built.outputs["dataset"].uri
        found = _look_up(store.local(f"{dataset}/{FEEDBACK_INDEX}"), feedback_id)
        if found and dataset not in uses:
            made = tuple(_summary(manifest) for manifest in descent(built, manifests))
            places = tuple(RowRef(file=file, row=row) for file, row, _ in found if file is not None)
            uses[dataset] = Use(dataset=dataset, places=places, reason=found[0][2], made=made)
    return list(uses.values())


def feedback_on(store: Store, interaction_id: str) -> list[str]:
    """Return the ids of all collected feedback on an interaction, oldest first; empty if there is none."""
    import polars as pl

    from ratchet.lake.schema import FEEDBACK
    from ratchet.lake.tables import last_collection, scan

    if not store.exists(FEEDBACK.key):
        return []
    rows = scan(store, FEEDBACK, last_collection(store, FEEDBACK)).filter(pl.col("interaction_id") == interaction_id)
    return rows.select(FEEDBACK.id, FEEDBACK.time).collect().sort(FEEDBACK.time, FEEDBACK.id)[FEEDBACK.id].to_list()


def explain(store: Store, dataset: str) -> dict[str, Any]:
    """A dataset's card, what it was made from and what was made from it.

    `dataset` is its digest, the beginning of it, or its URI. Raises UserError if that names none, or several.
    """
    import json

    manifests = all_manifests(store)
    wanted = dataset.removeprefix("datasets/")
    built = {
        manifest.outputs["dataset"].uri: manifest
        for manifest in manifests
        if manifest.step == "build_datasets" and manifest.outputs["dataset"].digest.startswith(wanted)
    }
    if len(built) != 1:
        known = ", ".join(uri.removeprefix("datasets/")[:12] for uri in built) or "none"
        raise UserError(f"explain {dataset}: names {len(built)} datasets of {store.root} ({known}); give more digits")
    uri, manifest = built.popitem()
    return {
        "dataset": uri,
        "card": json.loads(store.read(f"{uri}/card.json")),
        "made_from": [_summary(one) for one in ancestry(manifest, manifests)[:-1]],
        "made": [_summary(one) for one in descent(manifest, manifests)],
    }


def _look_up(places: Path, feedback_id: str) -> list[tuple[str | None, int, str | None]]:
    """(file, row, reason) of a vote. The file is sorted, so that all row groups but one are skipped unread."""
    import polars as pl

    if not places.exists():  # of a dataset that was built before there were any
        return []
    found = pl.scan_parquet(places).filter(pl.col("feedback_id") == feedback_id)
    return found.select("file", "place", "reason").collect().rows()


def _summary(manifest: Manifest) -> dict[str, Any]:
    outputs = {name: artifact.uri for name, artifact in manifest.outputs.items()}
    told: dict[str, Any] = {
        name: manifest.facts[name] for name in ("verdict", "version", "outcome") if name in manifest.facts
    }
    return {"step": manifest.step, "manifest": manifest.uri, **outputs, **told}
