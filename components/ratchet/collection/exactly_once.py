"""Do one collection: append its events to the tables exactly once, and join its feedback to interactions.

Events are streamed in batches. What must be joined (feedback with its interactions, events that share an id) is spilled
to disk in buckets and joined one bucket at a time, so memory does not grow with the collection. Answers are spilled
only if feedback is on them.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

from ratchet.collection.conversations import NEEDED, find_chats, turns_of, with_chats
from ratchet.collection.event_files import EventFiles
from ratchet.collection.intents import Intent
from ratchet.collection.join import (
    Joined,
    first_of_each,
    join_triplets,
    may_still_join,
    needed_interactions,
    newest_time,
)
from ratchet.collection.records import CollectionRecord, make_flow, waiting_after, write_record
from ratchet.compute.hashing import is_in_sorted, sorted_unique
from ratchet.compute.spill import BUCKET, Spill, bucket_of
from ratchet.ingest import quarantine
from ratchet.lake import tables
from ratchet.lake.fingerprint import Fingerprint
from ratchet.lake.schema import COLLECTION, FEEDBACK, INTERACTIONS, TRIPLETS, TURN, Table
from ratchet.store import Store

BUCKET_ROWS = 200_000  # of feedback; each brings one or two answers of about a kilobyte


def collect(store: Store, intent: Intent, bucket_rows: int = BUCKET_ROWS) -> CollectionRecord:
    """Do one collection, or the rest of it after a kill. Earlier collections must be complete."""
    with tempfile.TemporaryDirectory(prefix="ratchet-collect-") as folder:
        return _Collection(store, intent, Path(folder), bucket_rows).run()


@dataclass
class _NewEvents:
    """The new events of one type in a collection: each id once, and none from an earlier collection.

    `num_new` and `newest_s` are complete once `rows` is exhausted.
    """

    files: EventFiles
    earlier: int
    num_new: int = 0
    newest_s: float = 0.0

    def __post_init__(self) -> None:
        self.table = self.files.table
        ids, hashes = [pl.Series(self.table.id, [], pl.String)], [pl.Series([], dtype=pl.UInt64)]
        for batch in self.files.ids():
            hashes.append(batch.hash())
            if self.earlier:  # the first collection, which may be a whole history, has no earlier ids to compare with
                ids.append(batch)
        ordered = pl.concat(hashes).sort()
        self.num_ids = len(ordered)
        self.repeated = ordered.filter(ordered == ordered.shift(1)).unique()
        self.known = pl.concat(ids)
        if self.earlier:  # those that the table already holds
            held = tables.scan(self.files.store, self.table, self.earlier).select(self.table.id)
            known = held.join(self.known.to_frame().lazy(), on=self.table.id, how="semi")
            self.known = known.collect(engine="streaming").to_series()

    def rows(self) -> Iterator[pl.DataFrame]:
        empty = _empty(self.table)
        repeats = Spill(self.files.folder / f"{self.table.event_type}-repeats", empty)
        num_buckets = _num_buckets(len(self.repeated), BUCKET_ROWS)
        for batch in self.files.rows():
            is_known = batch[self.table.id].is_in(self.known.implode())
            is_repeated = batch[self.table.id].hash().is_in(self.repeated.implode())
            again = batch.filter(is_repeated & ~is_known).with_columns(bucket_of(self.table.id, num_buckets))
            repeats.add(again)
            yield self._count(batch.filter(~is_repeated & ~is_known))
        for bucket in range(num_buckets):
            yield self._count(first_of_each(repeats.read(bucket), self.table))

    def _count(self, rows: pl.DataFrame) -> pl.DataFrame:
        self.num_new += rows.height
        self.newest_s = max(self.newest_s, newest_time(rows[self.table.time]))
        return rows

    @property
    def num_duplicates(self) -> int:
        return self.files.num_rows - len(self.files.refused) - self.num_new


@dataclass
class _Collection:
    store: Store
    intent: Intent
    folder: Path
    bucket_rows: int
    content: Fingerprint = field(default_factory=Fingerprint)
    waiting: list[pl.DataFrame] = field(default_factory=list)
    num_waiting: int = 0
    num_orphans: int = 0

    def run(self) -> CollectionRecord:
        earlier = self.intent.number - 1
        carried = waiting_after(self.store, earlier)
        votes, answers = (
            _NewEvents(EventFiles(self.store, table, self.intent.files_of(table.event_type), self.folder), earlier)
            for table in (FEEDBACK, INTERACTIONS)
        )
        self.num_buckets = _num_buckets(votes.num_ids + carried.height, self.bucket_rows)
        feedback = Spill(self.folder / "feedback", _empty(FEEDBACK))
        voted_on = Spill(self.folder / "voted-on", _empty(INTERACTIONS))
        wanted = [self._spill_feedback(feedback, carried)]
        self._append(FEEDBACK, self._votes(votes, feedback, wanted))
        needed = pl.concat(wanted).unique()
        self._append(INTERACTIONS, self._answers(answers, voted_on, needed))
        if earlier:  # spill the answers of earlier collections that this collection's feedback is on
            for rows in tables.matching(self.store, INTERACTIONS, earlier, needed[INTERACTIONS.id]):
                voted_on.add(rows.select(voted_on.empty.columns).join(needed, on=INTERACTIONS.id))
        before = CollectionRecord.read(self.store, earlier).newest_s if earlier else 0.0
        newest_s = max(before, votes.newest_s, answers.newest_s)
        self._append(TRIPLETS, self._triplets(feedback, voted_on, may_still_join(newest_s, self.intent.late_days)))
        return self._record(votes, answers, carried.height, newest_s)

    def _append(self, table: Table, batches: Iterator[pl.DataFrame]) -> None:
        tables.append(self.store, table, batches, self.intent.number)

    def _votes(self, votes: _NewEvents, feedback: Spill, wanted: list[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        for rows in votes.rows():
            wanted.append(self._spill_feedback(feedback, rows))
            yield rows

    def _spill_feedback(self, feedback: Spill, rows: pl.DataFrame) -> pl.DataFrame:
        """Spill feedback to its buckets; return the interactions that each bucket needs."""
        feedback.add(rows.with_columns(bucket_of(INTERACTIONS.id, self.num_buckets)))
        return needed_interactions(rows).select(INTERACTIONS.id, bucket_of("on", self.num_buckets)).unique()

    def _answers(self, answers: _NewEvents, voted_on: Spill, needed: pl.DataFrame) -> Iterator[pl.DataFrame]:
        """Yield all new answers; spill those that feedback is on to the buckets that need them.

        Joining every batch with all needed ids would cost the square of the votes. Nearly all answers are needed in the
        bucket of their own hash, so for these a membership test is enough.
        """
        hashes = sorted_unique(needed[INTERACTIONS.id].hash().to_numpy())
        turns, chats = self._chats(answers)
        elsewhere = needed.filter(pl.col(BUCKET) != bucket_of(INTERACTIONS.id, self.num_buckets))
        for rows in with_chats(answers.rows(), turns, chats):
            is_needed = pl.Series(is_in_sorted(rows[INTERACTIONS.id].hash().to_numpy(), hashes))
            voted_on.add(rows.filter(is_needed).with_columns(bucket_of(INTERACTIONS.id, self.num_buckets)))
            voted_on.add(rows.join(elsewhere, on=INTERACTIONS.id))
            yield rows

    def _chats(self, answers: _NewEvents) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Return the turns of the new answers that name no chat, and the chats that were found for them."""
        found = [turns_of(rows) for rows in answers.files.columns(*NEEDED)] or [turns_of(_empty(INTERACTIONS))]
        served, earlier = (pl.concat(parts) for parts in zip(*found, strict=True))
        served = served.filter(~pl.col(INTERACTIONS.id).is_in(answers.known.implode()))
        served = served.sort(INTERACTIONS.time, TURN).unique(INTERACTIONS.id, keep="first", maintain_order=True)
        known = [served.clear()]
        if answers.earlier and earlier.height:
            rows_of_turns = tables.matching(self.store, INTERACTIONS, answers.earlier, earlier[TURN])
            known += [rows.select(served.columns) for rows in rows_of_turns]
        return served, find_chats(served, earlier, pl.concat(known))

    def _triplets(self, feedback: Spill, voted_on: Spill, may_wait: pl.Expr) -> Iterator[pl.DataFrame]:
        for bucket in range(self.num_buckets):
            joined = join_triplets(feedback.read(bucket), voted_on.read(bucket), may_wait)
            self._count(joined)
            yield joined.triplets

    def _count(self, joined: Joined) -> None:
        self.content += Fingerprint.of(joined.triplets)
        self.waiting.append(joined.waiting)
        self.num_waiting += joined.waiting.height
        self.num_orphans += joined.orphans

    def _record(self, votes: _NewEvents, answers: _NewEvents, num_carried: int, newest_s: float) -> CollectionRecord:
        refused = [*answers.files.refused, *votes.files.refused]
        done = CollectionRecord(
            number=self.intent.number,
            interactions=make_flow(
                answers.files.num_rows,
                answers.num_new,
                malformed=len(answers.files.refused),
                duplicate=answers.num_duplicates,
            ),
            feedback=make_flow(
                votes.files.num_rows + num_carried,
                self.content.num_rows,
                malformed=len(votes.files.refused),
                duplicate=votes.num_duplicates,
                waiting_for_interaction=self.num_waiting,
                orphan=self.num_orphans,
            ),
            refused=quarantine.keep(self.store, refused) if refused else None,
            newest_s=newest_s,
            content_sums=self.content.sums,
        )
        write_record(self.store, done, pl.concat([_empty(FEEDBACK), *self.waiting]).sort(FEEDBACK.id))
        return done


def _num_buckets(num_rows: int, bucket_rows: int) -> int:
    return max(1, -(-num_rows // bucket_rows))


def _empty(table: Table) -> pl.DataFrame:
    return pl.DataFrame(schema={name: kind for name, kind in table.schema.items() if name != COLLECTION})
