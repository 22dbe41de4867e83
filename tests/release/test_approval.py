"""A person's yes in the ledger: whose, why, of which adapter, and once."""

import json

import pytest

from ratchet.errors import UserError
from ratchet.release.approval import LASTS_S, RegisteredAdapter, approve, check_approved, find_registered
from ratchet.release.ledger import Ledger, LedgerEntry, approval, close, open_request, read_ledger, releases, request
from ratchet.store import Store
from support.release_edges import NEW, OLD

OTHER = NEW.model_copy(update={"version": "3", "digest": "c" * 64})


@pytest.fixture
def registry(lake: Store) -> Store:
    """Two registered adapters, as register_adapter records them; the first was judged twice."""
    for number, (adapter, verdict) in enumerate([(NEW, "pass"), (NEW, "insufficient"), (OTHER, "pass")]):
        record = {
            "name": adapter.name,
            "version": adapter.version,
            "adapter_uri": f"adapters/{adapter.digest}",
            "adapter_digest": adapter.digest,
            "verdict": verdict,
        }
        lake.create(f"registry/{number}/version.json", json.dumps(record).encode())
    return lake


@pytest.mark.parametrize("name", ["b" * 8, "b" * 64, "adapter@v2"])
def test_an_adapter_is_named_by_digest_or_version(registry: Store, name: str) -> None:
    found = find_registered(registry, name)
    assert (found.adapter.version, found.adapter.digest) == (NEW.version, NEW.digest)
    assert found.verdict == "insufficient or pass"


@pytest.mark.parametrize("name", ["bbb", "adapter@v9", "", "b" * 65])
def test_an_adapter_that_is_not_there_is_refused_with_those_that_are(registry: Store, name: str) -> None:
    with pytest.raises(UserError, match=r"adapter@v2 bbbbbbbbbbbb, adapter@v3 cccccccccccc"):
        find_registered(registry, name)


def test_a_second_yes_adds_nothing(registry: Store) -> None:
    ledger, found = Ledger(registry), find_registered(registry, "adapter@v2")
    first = approve(ledger, found, "ada", 1.0, "read it")
    assert approve(ledger, found, "bob", 2.0, "me too") == first
    assert len(read_ledger(registry)) == 1


@pytest.mark.parametrize(("who", "why"), [("", "read it"), ("ada", " ")])
def test_a_yes_without_a_name_or_a_reason_is_none(registry: Store, who: str, why: str) -> None:
    with pytest.raises(UserError, match="both are needed"):
        approve(Ledger(registry), find_registered(registry, "adapter@v2"), who, 1.0, why)


def test_a_yes_is_for_its_own_adapter_and_until_its_release_ends(registry: Store) -> None:
    ledger = Ledger(registry)
    approve(ledger, find_registered(registry, "adapter@v2"), "ada", 1.0, "read it")
    with pytest.raises(UserError, match="waits for a person"):
        check_approved(ledger.records(), OTHER, "pass", 2.0)
    request(ledger, LedgerEntry(event="requested", at=2.0, who="t", adapter=NEW, baseline=OLD, verdict="pass"))
    opened = open_request(ledger.records())
    assert opened is not None
    approve(ledger, find_registered(registry, "adapter@v3"), "ada", 3.0, "this one next")
    assert approval(ledger.records(), NEW.digest) is not None
    close(ledger, opened, "rolled_back", at=4.0, who="reconciler", why="users like it less")
    assert approval(ledger.records(), NEW.digest) is None
    assert approval(ledger.records(), OTHER.digest) is not None
    # An approval in the middle of another adapter's release is no part of it.
    assert [[record.event for record in each] for each in releases(ledger.records())] == [["requested", "rolled_back"]]


def test_a_yes_is_for_the_verdict_that_it_was_given_on(lake: Store) -> None:
    ledger = Ledger(lake)
    approve(ledger, RegisteredAdapter(NEW, "pass"), "ada", 1.0, "read it")
    check_approved(ledger.records(), NEW, "pass", 2.0)
    with pytest.raises(UserError, match="its verdict was pass, and it is fail now"):
        check_approved(ledger.records(), NEW, "fail", 3.0)
    approve(ledger, RegisteredAdapter(NEW, "fail"), "ada", 2.0, "all the same")
    check_approved(ledger.records(), NEW, "fail", 3.0)


def test_a_request_is_checked_against_the_records_that_it_follows(lake: Store) -> None:
    """Two runs that both saw the yes: the one that comes second, after a release has used it up, opens nothing."""
    ledger = Ledger(lake)
    approve(ledger, RegisteredAdapter(NEW, "pass"), "ada", 1.0, "read it")
    entry = LedgerEntry(event="requested", at=2.0, who="t", adapter=NEW, baseline=OLD, verdict="pass")
    opened = request(ledger, entry, lambda records: check_approved(records, NEW, "pass", 4.0))
    assert opened is not None
    close(ledger, opened, "rolled_back", at=3.0, who="reconciler", why="users like it less")
    with pytest.raises(UserError, match="waits for a person"):
        request(ledger, entry, lambda records: check_approved(records, NEW, "pass", 4.0))


def test_a_record_of_a_later_version_stops_no_reader(lake: Store) -> None:
    ledger = Ledger(lake)
    opened = request(ledger, LedgerEntry(event="requested", at=1.0, who="t", adapter=NEW, baseline=OLD))
    assert opened is not None
    later = {**opened.model_dump(), "event": "audited", "seq": 2, "auditor": "a field that this version does not know"}
    lake.create("ledger/00000002.json", json.dumps(later).encode())
    assert open_request(read_ledger(lake)) == opened
    assert [[record.seq for record in each] for each in releases(read_ledger(lake))] == [[1, 2]]


def test_a_yes_that_nobody_used_lasts_a_month(lake: Store) -> None:
    ledger, yes = Ledger(lake), RegisteredAdapter(NEW, "pass")
    approve(ledger, yes, "ada", 0.0, "read it")
    check_approved(ledger.records(), NEW, "pass", LASTS_S)
    with pytest.raises(UserError, match="ada approved it 31 days ago"):
        check_approved(ledger.records(), NEW, "pass", LASTS_S + 86400)
    approve(ledger, yes, "bob", LASTS_S + 86400, "read it again")
    check_approved(ledger.records(), NEW, "pass", LASTS_S + 86400)
