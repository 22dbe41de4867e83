"""Deduplicate an importer's events, land them in batches, and account for every record.

Memory does not grow with the files: events land in batches, and the ids seen are in SQLite, which spills to a temporary
file. The same files make the same batches, so importing twice lands once.
"""

import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ratchet.digest import digest_json
from ratchet.events import Consent, Feedback, Interaction, Source
from ratchet.ingest.importers.records import SourceRecord
from ratchet.ingest.importers.scores import Rules
from ratchet.ingest.landing import land
from ratchet.ingest.quarantine import RefusedLine, faults, keep
from ratchet.manifest import Flow
from ratchet.store import Store

EPOCH_S = 1_767_225_600  # 2026-01-01: without times, record n is served n steps of STEP_S after this
STEP_S = 10
BATCH_BYTES = 16 << 20
MAX_NAMES = 100  # of scores without a rule, so that a file cannot fill the memory with names

Unit = Literal["interactions", "feedback"]
DROPS = (
    "unreadable",  # not JSON
    "unusable",  # not of the documented schema
    "no_text",  # a prompt or an answer that is empty, or that is not text
    "not_one_answer",  # judges a session, an episode or two different prompts
    "scale_unknown",  # a score without a rule (`--score`)
    "out_of_scale",  # a score that its rule does not cover
    "says_nothing",  # neither score nor comment nor correction
    "taken_back",  # another one overrides it
    "other_kind",  # neither an answer nor feedback: a tool's span, a log line
    "duplicate",
)


class Unmappable(Exception):
    """A record of the documented schema that cannot be mapped to an event."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason = reason


@dataclass(frozen=True)
class Terms:
    """The user's statements about the data: consent, the meaning of scores, and the source of votes."""

    consent: Consent = "granted"
    scores: Rules = field(default_factory=dict)
    source: Source | None = None


class Imported(BaseModel):
    """The account of an import. `scores_without_rule` counts dropped scores by name."""

    model_config = ConfigDict(frozen=True)

    flows: dict[Unit, Flow]
    scores_without_rule: dict[str, int]
    quarantined: list[str]


class Intake:
    """Collects the events of one import. `order` is the number of the current record in its file, from 0."""

    def __init__(self, store: Store, origin: str, terms: Terms, seen: sqlite3.Connection) -> None:
        self.origin, self.terms = origin, terms
        self._store, self._seen = store, seen
        seen.executescript("PRAGMA journal_mode=OFF; CREATE TABLE seen (id TEXT PRIMARY KEY) WITHOUT ROWID")
        self._events: list[Interaction | Feedback] = []
        self._refused: list[RefusedLine] = []
        self._batch_bytes = 0
        self._rows_out: Counter[str] = Counter()
        self._drops: dict[str, Counter[str]] = {"interactions": Counter(), "feedback": Counter()}
        self._without_rule: Counter[str] = Counter()
        self._quarantined: list[str] = []
        self._file, self._record = "", SourceRecord(0, b"", 0)
        self.order = -1

    def open(self, file: str) -> None:
        """Start another file; records are numbered from its start."""
        self._file, self.order = file, -1

    @contextmanager
    def record(self, record: SourceRecord, unit: Unit, num_votes: int = 1) -> Iterator[None]:
        """Context for reading one record: a fault drops it and keeps its bytes."""
        self.order += 1
        self._record = record
        with self.part(unit, num_votes):
            yield
        self._batch_bytes += len(record.data)
        if self._batch_bytes >= BATCH_BYTES:
            self._flush()

    @contextmanager
    def part(self, unit: Unit, num_votes: int = 1, data: bytes | None = None) -> Iterator[None]:
        """Context for reading one part of a record: a fault drops this part alone and keeps its bytes, `data`."""
        try:
            yield
        except ValidationError as error:
            is_json = all(fault["type"] != "json_invalid" for fault in error.errors())
            reason, num_lost = ("unusable", num_votes) if is_json else ("unreadable", 1)
            self._refuse(unit, reason, faults(error), num_lost, data)
        except Unmappable as error:
            self._refuse(unit, error.reason, str(error), num_votes, data)

    def skip(self, unit: Unit) -> None:
        """Count a record that is not meant to be an event. Its bytes are not kept: they may be most of a file."""
        self._drops[unit]["other_kind"] += 1

    def digest(self, *parts: Any) -> str:
        """Return an id made from content."""
        return digest_json([self.origin, *parts])[:32]

    def person(self, name: str) -> str:
        """Return a person's pseudonym, the same in every file of this format."""
        return self.digest("person", name)

    def time(self, seconds: float | None = None, later_s: int = 0) -> float:
        """Return the record's time (Unix seconds) or, without one, a time by its order in the file."""
        return EPOCH_S + self.order * STEP_S + later_s if seconds is None else seconds

    def chat(self, session: Any) -> str | None:
        """Return the chat of an answer by the session that its source names; None leaves it to be found by content.

        A trace is no chat: most tools make one of each turn.
        """
        return f"{self.origin}:{session}" if session else None

    def serve(self, **fields: Any) -> str:
        """Add an answer and return its id. A repeated id counts as a duplicate."""
        defaults = {"subject_id": self.origin, "base_model": "unknown", "consent_training": self.terms.consent}
        if fields["conversation_id"] is None:
            fields["conversation_id"] = fields["interaction_id"]
        event = Interaction.model_validate(_ordered(defaults | fields))
        self._add("interactions", event.interaction_id, event)
        return event.interaction_id

    def say(self, **fields: Any) -> None:
        """Add one signal on an answer. The user's `--source` overrides the format's."""
        fields |= {} if self.terms.source is None else {"source": self.terms.source}
        event = Feedback.model_validate(_ordered(fields))
        self._add("feedback", event.feedback_id, event)

    def lacks_rule(self, name: str) -> Unmappable:
        """Count a score without a rule; return the exception that drops it."""
        if name in self._without_rule or len(self._without_rule) < MAX_NAMES:
            self._without_rule[name] += 1
        return Unmappable("scale_unknown", f"no --score for {name}")

    def close(self) -> Imported:
        """Land the remaining events; return the account."""
        self._flush()
        flows = {}
        for unit, drops in self._drops.items():
            rows_out = self._rows_out[unit]
            counted = {reason: drops[reason] for reason in DROPS if drops.get(reason)}
            flows[unit] = Flow(rows_in=rows_out + sum(drops.values()), rows_out=rows_out, drops=counted)
        return Imported.model_validate(
            {"flows": flows, "scores_without_rule": self._without_rule, "quarantined": self._quarantined}
        )

    def _add(self, unit: Unit, name: str, event: Interaction | Feedback) -> None:
        key = f"{unit}:{name}"
        if self._seen.execute("INSERT OR IGNORE INTO seen VALUES (?)", (key,)).rowcount:
            self._events.append(event)
            self._rows_out[unit] += 1
        else:
            self._drops[unit]["duplicate"] += 1

    def _refuse(self, unit: Unit, reason: str, why: str, num_votes: int, data: bytes | None) -> None:
        self._drops[unit][reason] += num_votes
        kept = self._record.data if data is None else data
        self._refused.append(RefusedLine(self._file, self._record.offset, kept, f"{reason}: {why}", self.origin))

    def _flush(self) -> None:
        if self._refused:
            self._quarantined.append(keep(self._store, self._refused))
        land(self._store, self._events)
        self._events, self._refused, self._batch_bytes = [], [], 0


def _ordered(fields: dict[str, Any]) -> dict[str, Any]:
    """Sort the foreign columns by name: servers order maps differently, and files are named by content."""
    foreign = fields.get("source_fields")
    return fields if foreign is None else fields | {"source_fields": _sorted(foreign)}


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value
