"""The ledger: numbered without gaps, appended by many, and read for what is open and what is quarantined."""

import threading

import pytest

from ratchet.release.ledger import (
    EventName,
    Ledger,
    LedgerEntry,
    close,
    is_aborted,
    open_request,
    quarantined,
    read_ledger,
    releases,
    request,
    request_abort,
    served_before,
    serving,
)
from ratchet.store import Store
from support.release_edges import NEW, OLD

OTHER = NEW.model_copy(update={"digest": "c" * 64, "version": "3"})


def asking(adapter=NEW, at: float = 1.0) -> LedgerEntry:
    return LedgerEntry(event="requested", at=at, who="test", adapter=adapter, baseline=OLD, verdict="pass")


def test_records_are_numbered_and_reread(lake: Store) -> None:
    opened = request(Ledger(lake), asking())
    assert opened is not None
    close(Ledger(lake), opened, "promoted", at=2.0, who="test")
    assert [(record.seq, record.event) for record in read_ledger(lake)] == [(1, "requested"), (2, "promoted")]
    assert list(lake.list("ledger")) == ["ledger/00000001.json", "ledger/00000002.json"]


def test_one_release_at_a_time(lake: Store) -> None:
    ledger = Ledger(lake)
    opened = request(ledger, asking())
    assert request(ledger, asking(OTHER)) is None
    assert open_request(ledger.records()) == opened


def test_a_release_is_closed_once(lake: Store) -> None:
    ledger = Ledger(lake)
    opened = request(ledger, asking())
    assert opened is not None
    assert close(ledger, opened, "rolled_back", at=2.0, who="test") is not None
    assert close(ledger, opened, "promoted", at=3.0, who="test") is None
    assert open_request(ledger.records()) is None


@pytest.mark.parametrize(("event", "is_kept_out"), [("rolled_back", True), ("promoted", False), ("refused", False)])
def test_a_rollback_quarantines_until_the_next_request(lake: Store, event: EventName, is_kept_out: bool) -> None:
    ledger = Ledger(lake)
    opened = request(ledger, asking())
    assert opened is not None
    close(ledger, opened, event, at=2.0, who="test")
    assert (NEW.digest in quarantined(ledger.records())) == is_kept_out
    again = request(ledger, asking())
    assert again is not None
    assert again.attempt == 2
    assert not quarantined(ledger.records())


@pytest.mark.parametrize("event", ["restored", "promoted"])  # the latter as ledgers say that are older than the former
def test_a_rollback_of_an_operator_is_restored_and_no_promotion(lake: Store, event: EventName) -> None:
    ledger = Ledger(lake)
    promoted = request(ledger, asking())
    assert promoted is not None
    close(ledger, promoted, "promoted", at=2.0, who="test")
    back = LedgerEntry(event="requested", at=3.0, who="me", adapter=OLD, baseline=NEW, verdict="pass", restores=True)
    opened = request(ledger, back)
    assert opened is not None
    close(ledger, opened, event, at=4.0, who="test")
    records = read_ledger(lake)
    assert [record.event for record in records] == ["requested", "promoted", "requested", "restored"]
    assert open_request(records) is None
    assert [len(release) for release in releases(records)] == [2, 2]
    assert served_before(records) == {NEW.version: NEW, OLD.version: OLD}
    assert serving(records) == OLD
    assert quarantined(records) == {NEW.digest}


def test_an_abort_belongs_to_the_release_under_way(lake: Store) -> None:
    ledger = Ledger(lake)
    assert request_abort(ledger, "me", 0.0, "no") is None
    first = request(ledger, asking())
    assert first is not None
    assert request_abort(ledger, "me", 1.0, "users complain") is not None
    assert is_aborted(ledger.records(), first)
    close(ledger, first, "rolled_back", at=2.0, who="test")
    second = request(ledger, asking(OTHER))
    assert second is not None
    assert not is_aborted(ledger.records(), second)


def test_many_writers_leave_no_gap_and_lose_nothing(lake: Store) -> None:
    def write(number: int) -> None:
        ledger = Ledger(lake)
        for _ in range(5):
            ledger.append(lambda records: LedgerEntry(event="refused", at=0.0, who=f"writer {number}", adapter=NEW))

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    records = read_ledger(lake)
    assert [record.seq for record in records] == list(range(1, 21))
    assert {
        number: sum(record.who == f"writer {number}" for record in records) for number in range(4)
    } == dict.fromkeys(range(4), 5)
