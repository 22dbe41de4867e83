"""Write the report on a lake: one act for each of the newest runs that reached the furthest step."""

from pathlib import Path

from ratchet.errors import UserError
from ratchet.lineage import all_manifests, ancestry
from ratchet.release.ledger import read_ledger
from ratchet.report.report import Act, write_report
from ratchet.store import Store
from ratchet_pipelines.graph import STEPS

MAX_ACTS = 10  # a page that a person reads; a lake of a year has thousands of runs


def report_latest(store: Store, out: Path, titles: tuple[str, ...] = ()) -> None:
    """Write the report as an HTML file; `titles` name the first runs. Raises UserError for an empty lake."""
    manifests = all_manifests(store)
    reached = {manifest.step for manifest in manifests}
    furthest = next((step.name for step in reversed(STEPS) if step.name in reached), None)
    ends = [manifest for manifest in manifests if manifest.step == furthest]
    if not ends:
        raise UserError(f"{store.root} holds no results yet; run `ratchet run --lake {store.root}` first")
    named = [*titles, *(f"Run {number + 1}" for number in range(len(titles), len(ends)))]
    newest = list(zip(named, ends, strict=False))[-MAX_ACTS:]
    acts = [Act(title, ancestry(end, manifests)) for title, end in newest]
    write_report(acts, read_ledger(store), out)
