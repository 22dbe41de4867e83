"""The seams between the DAGs. Events carry digests, and manifests by the name of the step that made them.

Every event is a partition of its asset, named by its digest. It has to be one: Airflow starts nothing that listens to
the whole asset when a partitioned run updates it, and `collect_feedback` is partitioned by the hour. So the DAGs that
listen are partitioned too, and the key of such a run says what it works on.
"""

from datetime import UTC, datetime
from typing import Any

from airflow.sdk import Asset

NEWEST = "newest"

DATASET = Asset(name="dataset", uri="ratchet://lake/datasets")
ADAPTER = Asset(name="adapter", uri="ratchet://lake/adapters")
DRIFT = Asset(name="drift", uri="ratchet://lake/drift")


def announce(context: Any, asset: Asset, key: str, facts: dict[str, Any]) -> None:
    """Make the event that the current task's outlet emits when it succeeds, and keep it as the asset's newest."""
    event = context["outlet_events"][asset]
    event.extra = {**facts, "announced_at": datetime.now(UTC).isoformat()}
    event.add_partitions(key)
    context["asset_state_store"][asset].set(NEWEST, event.extra)


def newest(context: Any, asset: Asset) -> dict[str, Any] | None:
    """What was last announced of an inlet; None before the first.

    Not from `inlet_events`: Airflow 3.3.2 answers 500 there while a run that such an event started is queued.
    """
    found: dict[str, Any] | None = context["asset_state_store"][asset].get(NEWEST)
    return found


def announced(context: Any, asset: Asset) -> dict[str, Any] | None:
    """Return the event that started this run; None if a person or another asset started it."""
    events = context["triggering_asset_events"].get(asset, [])
    return dict(events[-1].extra) if events else None
