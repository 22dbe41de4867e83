import pytest

from ratchet.ingest.landing import batch_name, land, landed, lines
from ratchet.store import Store
from support.event_factory import NOW_S, interaction, vote


def test_events_land_by_type_and_day(lake: Store):
    land(lake, [interaction("a"), interaction("b", served_at=NOW_S + 86_400), vote("f", "a")])
    days = [key.rsplit("/", 1)[0] for key in landed(lake, "interaction") + landed(lake, "feedback")]
    assert days == [
        "events/interaction/dt=2026-01-01",
        "events/interaction/dt=2026-01-02",
        "events/feedback/dt=2026-01-01",
    ]


def test_the_same_events_land_once(lake: Store):
    keys = [land(lake, [vote("f", "a")]) for _ in range(2)]
    assert keys[0] == keys[1] == landed(lake, "feedback")


def test_a_batch_that_is_landed_again_is_there_once(lake: Store):
    for _ in range(2):
        land(lake, [vote("f", "a")], name="batch")
    assert len(landed(lake, "feedback")) == 1


def test_batches_of_one_name_do_not_hide_each_other(lake: Store):
    for name in "fg":
        land(lake, [vote(name, "a")], name="batch")
    assert len(landed(lake, "feedback")) == 2


def test_batch_names_sort_by_time():
    names = [batch_name("writer") for _ in range(3)]
    assert names == sorted(set(names))


@pytest.mark.parametrize("seconds", [-1e18, 1e18, float("nan"), float("inf")])
def test_a_broken_clock_still_lands(lake: Store, seconds: float):
    assert land(lake, [vote("f", "a", at=seconds)])[0].startswith("events/feedback/dt=unknown/")


def test_lines_know_their_byte_offsets(lake: Store):
    data = '{"é":1}\n\n{"b":2}\n{"cut'.encode()
    lake.create("events/feedback/dt=x/f.jsonl", data)
    found = list(lines(lake, "events/feedback/dt=x/f.jsonl"))
    assert [data[offset : offset + len(line)] for offset, line in found] == [line for _, line in found]
    assert [line for _, line in found] == ['{"é":1}\n'.encode(), b'{"b":2}\n', b'{"cut']
