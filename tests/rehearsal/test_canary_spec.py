"""What the rehearsal reads from a Canary, and what it refuses to rehearse."""

from typing import Any

import pytest

from ratchet.errors import UserError
from ratchet.rehearsal.canary_spec import Canary, read_canary, seconds
from rehearsal import replay


def canary(**settings: Any) -> Canary:
    resource = replay.canary_of(settings)
    resource["metadata"]["namespace"] = "test"
    return read_canary(resource)


@pytest.mark.parametrize(
    "key", ["iterations", "match", "mirror", "sessionAffinity", "primaryReadyThreshold", "canaryReadyThreshold"]
)
def test_what_is_not_modelled_is_refused_by_name(key: str) -> None:
    with pytest.raises(UserError, match=rf"analysis\.{key} is not modelled"):
        canary(**{key: [{"name": "request-success-rate"}]})


@pytest.mark.parametrize("lacks", ["templateRef", "interval"])
def test_a_metric_that_would_never_pass_is_refused(lacks: str) -> None:
    metric = {"name": "errors", "templateRef": {"name": "router-errors"}, "interval": "1m"}
    with pytest.raises(UserError, match="errors: give it a templateRef and an interval"):
        canary(metrics=[{key: value for key, value in metric.items() if key != lacks}])


def test_durations() -> None:
    assert (seconds("30s"), seconds("2m"), seconds("1m30s")) == (30.0, 120.0, 90.0)
    with pytest.raises(UserError, match="not a duration"):
        seconds("10")


def test_interval_has_flaggers_floor() -> None:
    assert canary(interval="1s").interval_s == 10.0
