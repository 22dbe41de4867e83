"""Collect: join what has landed since the last collection into triplets, each event exactly once.

A run first finishes collections that were planned but not committed (their collector was killed), then makes its
own. The flows count the collections that this run worked on; feedback carried over from earlier ones, still
waiting for its interaction, counts as in again.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from ratchet.config import Config
from ratchet.events import Feedback, Interaction
from ratchet.lake import quarantine, tables
from ratchet.lake.intents import Intent, landing_digest, plan
from ratchet.lake.landing import lines
from ratchet.lake.rows import (
    COLLECTION,
    FEEDBACK,
    INTERACTIONS,
    TRIPLETS,
    Table,
    content_digest,
    feedback_row,
    interaction_row,
)  # fmt: skip
from ratchet.manifest import Artifact, Flow, Made
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

    from ratchet.triplets.join import Joined

DROPS = ("malformed", "duplicate", "waiting_for_interaction", "orphan")


@dataclass(frozen=True)
class Collected:
    """What one collection did: its flows, and where it keeps the lines that are no events."""

    interactions: Flow
    feedback: Flow
    refused: str | None


def run(config: Config, inputs: Inputs, store: Store) -> Made:
    intents = plan(store, config.collect_triplets.late_days)
    committed = tables.last_collection(store, TRIPLETS)
    # With none to finish, the last one is counted again: its manifest may be all that a killed run still owed.
    unfinished = [intent for intent in intents if intent.number > committed] or intents[-1:]
    collected = [collect(store, intent) for intent in unfinished]
    found = tables.sorted_triplets(store, intents[-1].number)
    triplets = Artifact(uri=TRIPLETS.key, digest=content_digest(found), rows=found.height)
    return Made(
        outputs={"triplets": triplets},
        flows={
            "interactions": _total(one.interactions for one in collected),
            "feedback": _total(one.feedback for one in collected),
        },
        facts={
            "collections": [intent.number for intent in unfinished],
            "files": sum(len(intent.files) for intent in unfinished),
            "refused": [one.refused for one in collected if one.refused],
        },
    )


def collect(store: Store, intent: Intent) -> Collected:
    """Do one collection, or whatever of it is not done. Earlier collections must be complete."""
    interactions, bad_interactions = _read(store, intent, "interaction", INTERACTIONS, _interaction)
    feedback, bad_feedback = _read(store, intent, "feedback", FEEDBACK, _feedback)
    refused = [*bad_interactions, *bad_feedback]
    kept = quarantine.keep(store, refused) if refused else None
    new_interactions = _append_new(store, intent, INTERACTIONS, interactions, "served_at")
    new_feedback = _append_new(store, intent, FEEDBACK, feedback, "created_at")
    joined, carried = _join(store, intent)
    tables.append(store, TRIPLETS, joined.triplets, intent.number)
    return Collected(
        _flow(
            interactions.height + len(bad_interactions),
            new_interactions,
            malformed=len(bad_interactions),
            duplicate=interactions.height - new_interactions,
        ),
        _flow(
            feedback.height + len(bad_feedback) + carried,
            joined.triplets.height,
            malformed=len(bad_feedback),
            duplicate=feedback.height - new_feedback,
            waiting_for_interaction=joined.waiting,
            orphan=joined.orphans,
        ),
        kept,
    )


def _read(
    store: Store, intent: Intent, event_type: str, table: Table, to_row: Callable[[bytes], dict[str, Any]]
) -> tuple["pl.DataFrame", list[quarantine.Refused]]:
    """The events of a collection's files as rows, and the lines that are none."""
    import polars as pl

    rows, refused = [], []
    for file in _track(intent.files_of(event_type), f"collect {event_type} files"):
        for offset, line in lines(store, file):
            try:
                rows.append(to_row(line))
            except ValidationError as error:
                refused.append(quarantine.Refused(file, offset, line, quarantine.faults(error)))
    schema = {name: kind for name, kind in table.schema.items() if name != COLLECTION}
    return pl.DataFrame(rows, schema=schema), refused


def _append_new(store: Store, intent: Intent, table: Table, events: "pl.DataFrame", time: str) -> int:
    """Append the events that no earlier collection brought; how many there are."""
    from ratchet.triplets.join import new_events

    known = tables.scan(store, table, intent.number - 1).select(table.id)
    known = known.join(events.lazy().select(table.id), on=table.id, how="semi")
    new = new_events(events, known.collect(), table, time)
    tables.append(store, table, new, intent.number)
    return new.height


def _join(store: Store, intent: Intent) -> tuple["Joined", int]:
    """This collection's triplets, and how much of their feedback was carried over from earlier collections."""
    import polars as pl

    from ratchet.triplets.join import join_triplets, may_still_join, newest_time

    number = intent.number
    before = newest_time(*(tables.scan(store, table, number - 1) for table in (INTERACTIONS, FEEDBACK)))
    now = newest_time(*(tables.scan(store, table, number) for table in (INTERACTIONS, FEEDBACK)))
    joined_before = tables.scan(store, TRIPLETS, number - 1).select(pl.col(TRIPLETS.id).alias(FEEDBACK.id))
    is_new = pl.col(COLLECTION) == number
    feedback = (
        tables.scan(store, FEEDBACK, number)
        .filter(is_new | may_still_join(before, intent.late_days))
        .join(joined_before, on=FEEDBACK.id, how="anti")
        .collect()
    )
    wanted = pl.concat([feedback[INTERACTIONS.id], feedback["value_text"]]).drop_nulls().unique()
    interactions = tables.scan(store, INTERACTIONS, number).join(
        wanted.to_frame(INTERACTIONS.id).lazy(), on=INTERACTIONS.id, how="semi"
    )
    joined = join_triplets(feedback, interactions.collect(), may_still_join(now, intent.late_days))
    return joined, feedback.filter(~is_new).height


def _interaction(line: bytes) -> dict[str, Any]:
    return interaction_row(Interaction.model_validate_json(line))


def _feedback(line: bytes) -> dict[str, Any]:
    return feedback_row(Feedback.model_validate_json(line))


def _flow(rows_in: int, rows_out: int, **drops: int) -> Flow:
    return Flow(
        rows_in=rows_in, rows_out=rows_out, drops={reason: drops[reason] for reason in DROPS if drops.get(reason)}
    )


def _total(flows: Iterable[Flow]) -> Flow:
    flows = list(flows)
    drops: Counter[str] = sum((Counter(flow.drops) for flow in flows), Counter())
    return _flow(sum(flow.rows_in for flow in flows), sum(flow.rows_out for flow in flows), **drops)


def _track(files: list[str], what: str) -> Iterable[str]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(files, what, console=console, disable=not console.is_terminal or len(files) < 100, transient=True)


STEP = Step(
    name="collect_triplets",
    run=run,
    version=2,
    sources=lambda config, inputs, store: {"landing": landing_digest(store)},
)
