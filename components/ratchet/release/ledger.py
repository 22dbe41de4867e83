"""The release ledger: `ledger/{seq:08d}.json`, append-only, one record per event.

Optimistic concurrency: a record is created at the next free number or not at all; the writer that loses reads again
and decides again.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ratchet.adapter_ref import AdapterDigest, AdapterRef
from ratchet.errors import Conflict
from ratchet.store import Store

ROOT = "ledger"
EventName = Literal["approved", "requested", "abort_requested", "promoted", "restored", "rolled_back", "refused"]
CLOSING: tuple[EventName, ...] = ("promoted", "restored", "rolled_back", "refused")
SERVING: tuple[EventName, ...] = ("promoted", "restored")  # the record's adapter serves all traffic from here on


class LedgerEntry(BaseModel):
    """A record before `Ledger.append` numbers it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    event: EventName
    at: float = Field(description="Unix seconds")
    who: str
    adapter: AdapterRef
    baseline: AdapterRef | None = Field(None, description="the adapter that served when the release was requested")
    attempt: int = Field(0, description="1 for the first canary of this adapter, 2 for the next, …")
    verdict: str = Field("", description="of the offline gate")
    forced: bool = False
    restores: bool = Field(
        False, description="an operator goes back to an adapter that served before: no canary, no analysis"
    )
    applied_spec: str = Field("", description="the Canary's lastAppliedSpec at the request")
    condition_at: str = Field(
        "", description="when the Canary entered the phase that it was in at the request: it moves once a run starts"
    )
    quarantines: bool = Field(
        True, description="of `rolled_back`: the adapter took requests, and may not be released again"
    )
    evidence: dict[str, Any] = {}
    commit: str = ""
    why: str = ""


class LedgerRecord(LedgerEntry):
    """A numbered record. Services of different versions read one ledger: what a newer one adds stops no older one."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    seq: int
    event: str  # type: ignore[assignment]  # an EventName, or one of a later version, which ends nothing

    @model_validator(mode="before")
    @classmethod
    def _read_old_event(cls, fields: Any) -> Any:
        """Ledgers written before `restored` existed close an operator's rollback as `promoted`, with `restores` set."""
        if isinstance(fields, dict) and fields.get("event") == "promoted" and fields.get("restores"):
            return fields | {"event": "restored"}
        return fields


class Ledger:
    """The records in a store, cached: records never change, so each is read once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: dict[str, LedgerRecord] = {}

    def records(self) -> list[LedgerRecord]:
        """Return all records, oldest first."""
        keys = [key for key in self.store.list(ROOT) if key.endswith(".json")]
        for key in keys:
            if key not in self._known:
                self._known[key] = LedgerRecord.model_validate_json(self.store.read(key))
        return [self._known[key] for key in keys]

    def append(self, decide: Callable[[Sequence[LedgerRecord]], LedgerEntry | None]) -> LedgerRecord | None:
        """Append the entry that `decide` returns for the records so far; None if it returns none.

        `decide` runs again each time another writer was first.
        """
        while True:
            records = self.records()
            entry = decide(records)
            if entry is None:
                return None
            record = LedgerRecord(**dict(entry), seq=records[-1].seq + 1 if records else 1)
            try:
                self.store.create(f"{ROOT}/{record.seq:08d}.json", record.model_dump_json(indent=1).encode())
            except Conflict:
                continue
            return record


def read_ledger(store: Store) -> list[LedgerRecord]:
    """Return all records, oldest first."""
    return Ledger(store).records()


def open_request(records: Iterable[LedgerRecord]) -> LedgerRecord | None:
    """Return the release under way: requested and not yet closed. There is at most one."""
    known = list(records)
    requests = (record for record in reversed(known) if record.event == "requested")
    newest = next(requests, None)
    return newest if newest is not None and closing(known, newest) is None else None


def request(
    ledger: Ledger, entry: LedgerEntry, check: Callable[[Sequence[LedgerRecord]], None] = lambda records: None
) -> LedgerRecord | None:
    """Open a release, and number its attempt; None while another release is open.

    `check` sees the very records after which the request is appended, and may raise.
    """

    def decide(records: Sequence[LedgerRecord]) -> LedgerEntry | None:
        if open_request(records) is not None:
            return None
        check(records)
        earlier = sum(
            record.event == "requested" and record.adapter.digest == entry.adapter.digest for record in records
        )
        return entry.model_copy(update={"attempt": earlier + 1})

    return ledger.append(decide)


def approval(records: Iterable[LedgerRecord], digest: AdapterDigest) -> LedgerRecord | None:
    """Return a person's yes to the next release of this adapter; None without one. The end of a release uses it up."""
    words = [
        record
        for record in records
        if record.adapter.digest == digest and (record.event == "approved" or record.event in CLOSING)
    ]
    return words[-1] if words and words[-1].event == "approved" else None


def close(ledger: Ledger, opened: LedgerRecord, event: EventName, **details: Any) -> LedgerRecord | None:
    """Close the release `opened`; None if it is closed already."""
    kept = opened.model_dump(include={"adapter", "baseline", "attempt", "verdict", "forced", "restores"})

    def decide(records: Sequence[LedgerRecord]) -> LedgerEntry | None:
        return LedgerEntry(event=event, **kept, **details) if open_request(records) == opened else None

    return ledger.append(decide)


def request_abort(ledger: Ledger, who: str, at: float, why: str) -> LedgerRecord | None:
    """Record that the release under way is to be rolled back; None if there is none."""

    def decide(records: Sequence[LedgerRecord]) -> LedgerEntry | None:
        opened = open_request(records)
        return opened and LedgerEntry(event="abort_requested", at=at, who=who, why=why, adapter=opened.adapter)

    return ledger.append(decide)


def closing(records: Iterable[LedgerRecord], opened: LedgerRecord) -> LedgerRecord | None:
    """Return the record that closed `opened`; None while it is open."""
    ends = (record for record in records if record.seq > opened.seq and record.event in CLOSING)
    return next((record for record in ends if record.adapter.digest == opened.adapter.digest), None)


def releases(records: Iterable[LedgerRecord]) -> list[list[LedgerRecord]]:
    """Group the records by release, oldest first: from the request to its end. A refusal may have no request.

    Approvals are left out: they come before a request, and may never lead to one.
    """
    groups: list[list[LedgerRecord]] = []
    is_open = False
    for record in records:
        if record.event == "approved":
            continue
        if is_open and record.event != "requested":
            groups[-1].append(record)
        else:
            groups.append([record])
        is_open = record.event == "requested" or (is_open and record.event not in CLOSING)
    return groups


def served_before(records: Iterable[LedgerRecord]) -> dict[str, AdapterRef]:
    """Return every adapter that has served all traffic, by version, as Git and pods named it then."""
    by_version: dict[str, AdapterRef] = {}
    for record in records:
        if record.event == "requested" and record.baseline:
            by_version[record.baseline.version] = record.baseline
        elif record.event in SERVING:
            by_version[record.adapter.version] = record.adapter
    return by_version


def serving(records: Iterable[LedgerRecord]) -> AdapterRef | None:
    """Return the adapter that serves by the ledger: the last one promoted or restored. None before the first."""
    return next((record.adapter for record in reversed(list(records)) if record.event in SERVING), None)


def is_aborted(records: Iterable[LedgerRecord], opened: LedgerRecord) -> bool:
    return any(record.event == "abort_requested" and record.seq > opened.seq for record in records)


def quarantined(records: Iterable[LedgerRecord]) -> set[AdapterDigest]:
    """Return the digests that a canary or an operator rolled back, and that were not requested again since."""
    digests: set[AdapterDigest] = set()
    for record in records:
        if record.event == "rolled_back" and record.quarantines:
            digests.add(record.adapter.digest)
        elif record.event == "restored" and record.baseline:
            digests.add(record.baseline.digest)
        elif record.event == "requested":
            digests.discard(record.adapter.digest)
    return digests
