import polars as pl
import pytest

from ratchet.ingest.bulk import land_rows
from ratchet.lake.schema import FEEDBACK
from ratchet.store import Store
from support.event_factory import NOW_S


def test_rows_land_by_day_and_once(lake: Store):
    rows = pl.DataFrame({"feedback_id": ["f", "g"], "created_at": [NOW_S, NOW_S + 86_400]})
    keys = [land_rows(lake, FEEDBACK, rows) for _ in range(2)]
    assert keys[0] == keys[1] == list(lake.list("events"))
    assert [key.rsplit("/", 1)[0] for key in keys[0]] == [
        "events/feedback/dt=2026-01-01",
        "events/feedback/dt=2026-01-02",
    ]


@pytest.mark.parametrize("seconds", [-1e18, 1e18, float("nan"), float("inf"), None])
def test_a_broken_clock_still_lands(lake: Store, seconds: float | None):
    rows = pl.DataFrame({"feedback_id": ["f"], "created_at": [seconds]}, {"feedback_id": str, "created_at": float})
    assert land_rows(lake, FEEDBACK, rows)[0].startswith("events/feedback/dt=unknown/")
