"""Whether a dataset is worth a training: on counts that its asset event carries, never on the data."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

MAX_AGE = timedelta(days=7)


def why_train(
    dataset: Mapping[str, Any],
    last: Mapping[str, Any] | None,
    now: datetime,
    *,
    min_new: int,
    drift: str | None,
) -> str | None:
    """The reason to train on this dataset, or None. `last` is what was announced of the newest adapter.

    The same dataset is never a reason: the step would find its result and do nothing.
    """
    if last is not None and last["dataset_digest"] == dataset["digest"]:
        return None
    num_new = dataset["triplets"] - (last["triplets"] if last else 0)
    if num_new >= min_new:
        return f"{num_new} new triplets, at least {min_new}"
    if drift is not None:
        return f"drift: {drift}"
    if last is not None and now - (then := datetime.fromisoformat(last["announced_at"])) >= MAX_AGE:
        return f"{num_new} new triplets, and the last training was on {then:%Y-%m-%d}"
    return None
