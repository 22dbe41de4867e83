"""Follow lineage both ways by reading manifests: a result's sources, and the results made from it.

Manifests link steps by digest. Within a dataset, `feedback_index.parquet`, sorted by feedback id, lists the rows made
from each vote, or the reason why there are none.
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ratchet.errors import UserError
from ratchet.manifest import FEEDBACK_INDEX, Manifest
from ratchet.step import read_manifest
from ratchet.store import Store

READERS = 16


class RowRef(BaseModel):
    """A row of a dataset's file that was made from a vote."""

    model_config = ConfigDict(frozen=True)

    file: str
    row: int


class Use(BaseModel):
    """The use of a vote in one dataset, and the results made from that dataset."""

    model_config = ConfigDict(frozen=True)

    dataset: str
    places: tuple[RowRef, ...]
    reason: str | None
    """Why no row was made from the vote; None if one was."""
    made: tuple[dict[str, Any], ...]


def all_manifests(store: Store) -> list[Manifest]:
    """Return every published manifest, oldest first."""
    uris = [uri for uri in store.list("manifests") if uri.endswith(".json")]
    with ThreadPoolExecutor(
        READERS
    ) as readers:  # a lake of some years has tens of thousands, each a request of its own
        manifests = list(readers.map(partial(read_manifest, store), uris))
    return sorted(manifests, key=lambda manifest: (manifest.created_at, manifest.key))


def ancestry(last: Manifest, manifests: Iterable[Manifest]) -> list[Manifest]:
    """Return `last` and everything that it was made from, sources first, each once."""
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
    """Return everything that was made from `first`, directly or through others, oldest first."""
    digests, descendants = {first.digest}, []
    for manifest in sorted(manifests, key=lambda manifest: manifest.created_at):
        if digests & set(manifest.inputs.values()):
            digests.add(manifest.digest)
            descendants.append(manifest)
    return descendants


def where_used(store: Store, feedback_id: str) -> list[Use]:
    """Return the use of a vote in every dataset that read it, oldest dataset first."""
    manifests = all_manifests(store)
    uses: dict[str, Use] = {}
    for built in (manifest for manifest in manifests if manifest.step == "build_datasets"):
        dataset = built.outputs["dataset"].uri
        entries = _look_up(store.local(f"{dataset}/{FEEDBACK_INDEX}"), feedback_id)
        if entries and dataset not in uses:
            made = tuple(_summary(manifest) for manifest in descent(built, manifests))
            places = tuple(RowRef(file=file, row=row) for file, row, _ in entries if file is not None)
            uses[dataset] = Use(dataset=dataset, places=places, reason=entries[0][2], made=made)
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
    """Return a dataset's card, its sources, and the results made from it.

    `dataset` is its digest, a prefix of that, or its URI. Raises UserError if it matches no dataset, or several.
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
        "made_from": [_summary(source) for source in ancestry(manifest, manifests)[:-1]],
        "made": [_summary(result) for result in descent(manifest, manifests)],
    }


def _look_up(index: Path, feedback_id: str) -> list[tuple[str | None, int, str | None]]:
    """Return (file, row, reason) of a vote. The index is sorted, so all row groups but one are skipped unread."""
    import polars as pl

    if not index.exists():  # the dataset is older than the index
        return []
    entries = pl.scan_parquet(index).filter(pl.col("feedback_id") == feedback_id)
    return entries.select("file", "place", "reason").collect().rows()


def _summary(manifest: Manifest) -> dict[str, Any]:
    outputs = {name: artifact.uri for name, artifact in manifest.outputs.items()}
    facts: dict[str, Any] = {
        name: manifest.facts[name] for name in ("verdict", "version", "outcome") if name in manifest.facts
    }
    return {"step": manifest.step, "manifest": manifest.uri, **outputs, **facts}
