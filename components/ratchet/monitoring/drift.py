"""Detect drift: compare the last week of triplets with the four before, by kind, approval and prompt length.

The windows end at the newest triplet, not now: days without votes are an outage, which other alarms report.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ratchet.clock import DAY_S
from ratchet.digest import digest_json
from ratchet.lake import tables
from ratchet.lake.schema import TRIPLETS
from ratchet.monitoring.shift_statistics import ALPHA, Shift, share_change, stability_index
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

RECENT_DAYS = 7  # a whole week, since weekends have other users
REFERENCE_DAYS = 28
MIN_ROWS = 100  # in each window; with fewer, only a change of a quarter or more differs from chance
NUM_BINS = 5


def find_drift(store: Store) -> dict[str, Any]:
    """Return `drifted`, `why` in one line, `shifts` (each signal with its numbers), and a `digest` of these."""
    finding = _assess(*_windows(store))
    return {"digest": digest_json(finding), **finding}


def _windows(store: Store) -> tuple["pl.DataFrame", "pl.DataFrame"]:
    import polars as pl

    newest = pl.col("created_at").max()
    rows = (
        tables.scan(store, TRIPLETS, tables.ALL)
        .select("created_at", "kind", "value_num", chars=pl.col("messages").str.len_chars())
        .with_columns(age_days=(newest - pl.col("created_at")) / DAY_S)
        .filter(pl.col("age_days") < RECENT_DAYS + REFERENCE_DAYS)
        .collect()
    )
    is_recent = rows["age_days"] < RECENT_DAYS
    return rows.filter(~is_recent), rows.filter(is_recent)


def _assess(reference: "pl.DataFrame", recent: "pl.DataFrame") -> dict[str, Any]:
    sizes = {"reference": reference.height, "recent": recent.height}
    if min(sizes.values()) < MIN_ROWS:
        why = f"cannot tell: {recent.height} recent and {reference.height} earlier triplets; each needs {MIN_ROWS}"
        return {"drifted": False, "why": why, "rows": sizes, "shifts": []}
    shifts = _shifts(reference, recent)
    moved = [shift for shift in shifts if shift.is_drift(ALPHA / len(shifts))]
    reasons = [
        f"{shift.signal}: {shift.measure} {shift.size:.2f}, at least {shift.limit} (p {shift.p:.1g})" for shift in moved
    ]
    why = "; ".join(reasons) or f"none of {len(shifts)} signals moved"
    return {"drifted": bool(moved), "why": why, "rows": sizes, "shifts": [asdict(shift) for shift in shifts]}


def _shifts(reference: "pl.DataFrame", recent: "pl.DataFrame") -> list[Shift]:
    edges = [reference["chars"].quantile(step / NUM_BINS) or 0.0 for step in range(1, NUM_BINS)]
    shifts = [
        stability_index("kind", _counts(reference["kind"]), _counts(recent["kind"])),
        stability_index("prompt_chars", _binned(reference["chars"], edges), _binned(recent["chars"], edges)),
    ]
    before, after = _thumbs(reference), _thumbs(recent)
    if min(before[1], after[1]) >= MIN_ROWS:
        shifts.append(share_change("approval", before, after))
    return shifts


def _counts(values: "pl.Series") -> dict[str, int]:
    return dict(values.value_counts().iter_rows())


def _binned(values: "pl.Series", edges: list[float]) -> Mapping[str, int]:
    import numpy as np

    bins = np.searchsorted(edges, values.to_numpy(), side="left")
    return {f"bin {number + 1}": count for number, count in sorted(Counter(bins.tolist()).items())}


def _thumbs(rows: "pl.DataFrame") -> tuple[int, int]:
    """Return the number of thumbs up, and of all thumbs."""
    import polars as pl

    thumbs = rows.filter(pl.col("kind") == "thumb")["value_num"]
    return int((thumbs > 0).sum()), len(thumbs)
