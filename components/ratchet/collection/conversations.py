"""Find the chats of interactions whose producers name none, by what was said: a turn's prompt holds earlier answers.

An interaction that names no chat has its own id as `conversation_id`. It goes on with the interaction whose prompt and
answer are its prompt's longest beginning (`ratchet.turns`), if that was served before it, to the same person if there
are names; of several with the same texts, the last. Only answers that were really served count: the examples that an
application puts before each question are nobody's chat. Pure.
"""

import json
from collections.abc import Iterable, Iterator

import polars as pl

from ratchet.lake.schema import INTERACTIONS, TURN
from ratchet.turns import Turn, beginnings, person, turn_digest

NEEDED = (INTERACTIONS.id, "conversation_id", "subject_id", "tenant", "messages", "response", INTERACTIONS.time)
SERVED = {INTERACTIONS.id: pl.String, "conversation_id": pl.String, INTERACTIONS.time: pl.Float64, TURN: pl.Int64}
CLOCK_SKEW_S = 5.0  # between the servers that gave two turns of a chat


def turns_of(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the interactions that name no chat with their turn, and the earlier turns that each may go on with.

    `rows` has the columns `NEEDED`, unchecked. The first table has the columns `SERVED`; the second has
    `interaction_id`, `turn` and `place`, which is the larger the longer the beginning is.
    """
    unnamed = rows.filter(pl.col("conversation_id") == pl.col(INTERACTIONS.id))
    turns: list[int | None] = []
    earlier: list[tuple[str, int, int]] = []
    texts = unnamed.select(INTERACTIONS.id, "tenant", "subject_id", "messages", "response")
    for own_id, tenant, subject, text, response in texts.iter_rows():
        said = _said(text)
        if said is None or response is None:
            turns.append(None)  # the row will be refused
            continue
        owner = person(tenant or "default", subject or "")
        turns.append(turn_digest(owner, said, response))
        earlier += [(own_id, digest, place) for place, digest in enumerate(beginnings(owner, said))]
    known_turns = pl.Series(TURN, turns, pl.Int64)
    served = unnamed.select(INTERACTIONS.id, "conversation_id", INTERACTIONS.time, known_turns)
    schema = {INTERACTIONS.id: pl.String, TURN: pl.Int64, "place": pl.Int64}
    return served, pl.DataFrame(earlier, schema, orient="row")


def find_chats(served: pl.DataFrame, earlier: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Return `interaction_id` and `conversation_id` of the interactions that go on with another.

    `served` and `earlier`: of this collection, as `turns_of` returns them. `known`: those of earlier collections whose
    turn is among the earlier ones, with the columns `SERVED`.
    """
    before = pl.concat([known, served]).select(
        TURN, before=INTERACTIONS.id, chat="conversation_id", at=INTERACTIONS.time
    )
    # The last of several that said the same: joined by time, since common openings are said by thousands.
    before = before.drop_nulls().sort("at", "before")
    started = served.select(INTERACTIONS.id, at=INTERACTIONS.time).drop_nulls()
    places = earlier.join(started, on=INTERACTIONS.id).sort("at")
    links = places.join_asof(before, on="at", by=TURN, check_sortedness=False).join_asof(
        before, on="at", by=TURN, strategy="forward", tolerance=CLOCK_SKEW_S, suffix="_skewed", check_sortedness=False
    )
    links = (
        links.with_columns(pl.coalesce(name, f"{name}_skewed") for name in ("before", "chat"))
        .filter(pl.col("before").is_not_null() & (pl.col("before") != pl.col(INTERACTIONS.id)))
        .sort("place")
        .unique(INTERACTIONS.id, keep="last", maintain_order=True)
    )
    # By length, since whatever one goes on with is shorter.
    lengths = earlier.group_by(INTERACTIONS.id).agg(pl.col("place").max().alias("length"))
    links = links.join(lengths, on=INTERACTIONS.id).sort("length", INTERACTIONS.id)
    chats: dict[str, str] = {}
    for own_id, before_id, chat in links.select(INTERACTIONS.id, "before", "chat").iter_rows():
        chats[own_id] = chats.get(before_id, chat)
    return pl.DataFrame(
        {INTERACTIONS.id: [*chats], "conversation_id": [*chats.values()]},
        {INTERACTIONS.id: pl.String, "conversation_id": pl.String},
    )


def _said(text: str | None) -> list[Turn] | None:
    try:
        turns = [(message["role"], message["content"]) for message in json.loads(text or "")]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return turns if all(isinstance(part, str) for turn in turns for part in turn) else None


def with_chats(batches: Iterable[pl.DataFrame], turns: pl.DataFrame, chats: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """Yield rows of the interactions table with their `turn` and their chat."""
    turn_by_id = turns.select(INTERACTIONS.id, pl.col(TURN).alias("_turn"))
    chat_by_id = chats.rename({"conversation_id": "_chat"})
    for rows in batches:
        named = rows.join(turn_by_id, on=INTERACTIONS.id, how="left", maintain_order="left")
        named = named.join(chat_by_id, on=INTERACTIONS.id, how="left", maintain_order="left")
        yield named.with_columns(
            pl.col("_turn").alias(TURN), conversation_id=pl.coalesce("_chat", "conversation_id")
        ).select(rows.columns)
