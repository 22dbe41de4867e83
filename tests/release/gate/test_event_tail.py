"""The gate reads every landing file once, and lists only what may be new."""

import time
from collections.abc import Iterator
from typing import Any

import pytest

from ratchet.ingest.landing import batch_name, land
from ratchet.release.gate.event_tail import ALL_S, EventTail
from ratchet.store import Store, open_store
from support.event_factory import vote
from support.s3_server import s3_server


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[Store]:
    if request.param == "local":
        yield open_store(tmp_path / "lake")
        return
    with s3_server("lake"):
        yield open_store("s3://lake/tail")


def votes(tail: EventTail) -> int:
    return len(tail.votes)


def test_each_file_is_read_once_and_old_ones_are_not_even_listed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time()
    listed: list[str] = []
    list_all = store.list

    def spy(prefix: str, after: str = "") -> Iterator[str]:
        found = list(list_all(prefix, after))
        listed.extend(found)
        return iter(found)

    with monkeypatch.context() as patched:
        patched.setattr(time, "time_ns", lambda: int((now - 3600) * 1e9))
        for number in range(5):
            land(store, [vote(f"old-{number}", "a", at=now)], batch_name("router"))
    tail = EventTail(store, since=now - 7200)
    monkeypatch.setattr(store, "list", spy)
    tail.read(now)
    assert (votes(tail), len(listed)) == (5, 5)
    land(store, [vote("new", "a", at=now)], batch_name("router"))
    land(store, [vote("unnamed", "a", at=now)])
    listed.clear()
    for _ in range(2):
        tail.read(now + 1)
    assert votes(tail) == 7
    assert len(listed) == 4, "two files, seen at both looks"


def test_a_file_under_any_name_is_found_by_the_next_look_at_everything(store: Store) -> None:
    now = time.time()
    tail = EventTail(store, since=now)
    tail.read(now)
    land(store, [vote("strange", "a", at=now)], "000-somebody-elses")
    tail.read(now + ALL_S - 1)
    assert votes(tail) == 0
    tail.read(now + ALL_S)
    assert votes(tail) == 1
