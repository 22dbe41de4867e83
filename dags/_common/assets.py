"""The seams between the DAGs. Events carry digests, and manifests by the name of the step that made them.

Every event is a partition of its asset, named by its digest. It has to be one: Airflow starts nothing that listens to
the whole asset when a partitioned run updates it, and `collect_feedback` is partitioned by the hour. So the DAGs that
listen are partitioned too, and the key of such a run says what it works on.
"""

from typing import Any

from airflow.sdk import Asset

DATASET = Asset(name="dataset", uri="ratchet://lake/datasets")
ADAPTER = Asset(name="adapter", uri="ratchet://lake/adapters")
DRIFT = Asset(name="drift", uri="ratchet://lake/drift")


def announce(context: Any, asset: Asset, key: str, extra: dict[str, Any]) -> None:
    """Make the event that the current task's outlet emits when it succeeds."""
    event = context["outlet_events"][asset]
    event.extra = extra
    event.add_partitions(key)


def newest(context: Any, asset: Asset) -> Any | None:
    """The newest event of an inlet, or None before the first."""
    found = list(context["inlet_events"][asset].ascending(False).limit(1))
    return found[0] if found else None


def triggered_by(context: Any, asset: Asset) -> list[Any]:
    """The events of the asset that started this run; none when a person did."""
    return list(context["triggering_asset_events"].get(asset, []))
