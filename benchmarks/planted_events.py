"""Events that come twice, late, before their answers or without any, and rows that are no events: all of it known.

Two collections of them are made, and what each counts is compared with what was planted in it.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

from benchmarks.planted import Score
from ratchet.collection.collect_triplets import STEP
from ratchet.config import Config
from ratchet.ingest.bulk import land_rows
from ratchet.lake.schema import FEEDBACK, INTERACTIONS, TRIPLETS
from ratchet.lake.tables import scan
from ratchet.step import run_step
from ratchet.store import Store

SHARE = 0.01  # of the votes, for each kind of trouble
START_S = 1_767_225_600.0  # 2026-01-01
DAY_S = 86_400
KINDS = ("plain", "early", "late", "orphan", "twice", "again", "broken")


@dataclass(frozen=True)
class Votes:
    """All votes, of which `planted` says what is the matter with each, and the answers that they are on."""

    votes: pl.DataFrame
    answers: pl.DataFrame

    def of(self, *kinds: str) -> pl.DataFrame:
        return self.votes.filter(pl.col("planted").is_in(kinds)).drop("planted")

    def num(self, kind: str) -> int:
        return self.of(kind).height


def plant(num_votes: int, seed: int = 0) -> Votes:
    """`early` ones come before their answers, `late` ones a collection after, the answers of orphans never."""
    rng = np.random.default_rng(seed)
    shares = [1 - SHARE * (len(KINDS) - 1)] + [SHARE] * (len(KINDS) - 1)
    numbers = pl.DataFrame({"n": np.arange(num_votes), "planted": rng.choice(KINDS, num_votes, p=shares)})
    is_orphan = pl.col("planted") == "orphan"
    votes = numbers.select(
        "planted",
        feedback_id=pl.format("f{}", "n"),
        interaction_id=pl.format("i{}", "n"),
        subject_id=pl.format("u{}", pl.col("n") % 5000),
        kind=pl.when(pl.col("planted") == "broken").then(pl.lit("applause")).otherwise(pl.lit("thumb")),
        value_num=pl.lit(1.0),
        created_at=START_S + pl.when(is_orphan).then(0.0).otherwise(60 * DAY_S + pl.col("n") % DAY_S),
    )
    answers = numbers.filter(~is_orphan).select(
        interaction_id=pl.format("i{}", "n"),
        conversation_id=pl.format("c{}", "n"),
        subject_id=pl.lit("asker"),
        messages=pl.concat_str(pl.lit('[{"content":"What is '), "n", pl.lit('?","role":"user"}]')),
        response=pl.format("A number, {} of many.", "n"),
        base_model=pl.lit("tiny"),
        served_at=START_S + 60 * DAY_S,
    )
    return Votes(votes, answers)


def collect_twice(lake: Store, made: Votes) -> dict[str, Score]:
    """How well each kind was recognised, by what the two collections counted and by what became a triplet."""
    early = made.of("early").select("interaction_id")
    for table, rows in (
        (INTERACTIONS, made.answers.join(early, on="interaction_id", how="anti")),
        (FEEDBACK, made.of("plain", "early", "orphan", "twice", "again", "broken")),
        (FEEDBACK, made.of("twice")),
    ):
        land_rows(lake, table, rows)
    first = run_step(STEP, Config(), {}, lake).manifest.flows["feedback"].drops
    land_rows(lake, INTERACTIONS, made.answers.join(early, on="interaction_id", how="semi"))
    for kind in ("late", "again"):
        land_rows(lake, FEEDBACK, made.of(kind))
    second = run_step(STEP, Config(), {}, lake).manifest.flows["feedback"].drops
    joined = scan(lake, TRIPLETS, 2).select("triplet_id").collect().to_series()
    counted = {
        "broken": first.get("malformed", 0),
        "orphan": first.get("orphan", 0),
        "twice": first.get("duplicate", 0),
        "again": second.get("duplicate", 0),
        "early": first.get("waiting_for_interaction", 0),
    }
    scores = {kind: _score(made, kind, num, joined) for kind, num in counted.items()}
    is_joined = {kind: int(made.of(kind)["feedback_id"].is_in(joined.implode()).sum()) for kind in KINDS}
    for kind in ("plain", "late", "early", "twice", "again"):
        scores[f"{kind}, joined once"] = Score(made.num(kind), is_joined[kind], is_joined[kind])
    scores["triplets"] = Score(
        made.votes.height - made.num("orphan") - made.num("broken"), len(joined), joined.n_unique()
    )
    return scores


def _score(made: Votes, kind: str, counted: int, joined: pl.Series) -> Score:
    """Of a kind that is only counted: right are no more than were planted, and none that became a triplet wrongly."""
    wrong = made.of(kind)["feedback_id"].is_in(joined.implode()).sum() if kind in ("orphan", "broken") else 0
    return Score(made.num(kind), counted, min(counted, made.num(kind)) - int(wrong))
