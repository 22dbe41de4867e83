"""The report on what a lake holds: one act for each release, or for the newest run if nothing was released."""

from pathlib import Path

from ratchet.errors import UserError
from ratchet.lineage import all_manifests, ancestry
from ratchet.manifest import Manifest
from ratchet.release.ledger import read_ledger
from ratchet.report.report import Act, write_report
from ratchet.store import Store
from ratchet_pipelines.graph import STEPS


def report_latest(store: Store, out: Path, titles: tuple[str, ...] = ()) -> None:
    """Write the report; `titles` name the acts, oldest first."""
    manifests = all_manifests(store)
    ends = _ends(manifests)
    if not ends:
        raise UserError(f"{store.root} holds no results yet; `ratchet run --lake {store.root}` makes some")
    named = [*titles, *(f"Run {number + 1}" for number in range(len(titles), len(ends)))]
    acts = [Act(title, ancestry(end, manifests)) for title, end in zip(named, ends, strict=False)]
    write_report(acts, read_ledger(store), out)


def _ends(manifests: list[Manifest]) -> list[Manifest]:
    """Manifests of the last step that was reached, oldest first."""
    for step in reversed(STEPS):
        if ends := [manifest for manifest in manifests if manifest.step == step.name]:
            return ends
    return []
