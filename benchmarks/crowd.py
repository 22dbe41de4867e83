"""Votes of a made-up crowd, with known liars, brigades, copies and contradictions in it.

Everything is drawn from one seed, so what a detector finds and misses can be counted. Tests use small crowds,
benchmarks large ones.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl

START_S = 1_767_225_600.0  # 2026-01-01
DAY_S = 86_400
VOTES_PER_RATER = 50
LIARS = 0.02  # of raters; at a million votes, 400 of them
MISTAKES = 0.15  # of an honest rater's votes
DUPLICATES, NEAR_DUPLICATES, CONTRADICTIONS = 0.01, 0.05, 0.01
UNWILLING, EXPIRED, RETRACTED = 0.02, 0.01, 0.01
BRIGADE = 30  # accounts of one day's age, all of one mind, with one comment among them
VOCABULARY = 20_000
DETECTED = (
    "no_consent", "expired", "retracted", "duplicate", "held_for_review", "unreliable_rater", "contradictory",
    "near_duplicate",
)  # fmt: skip


@dataclass(frozen=True)
class Crowd:
    """Triplets as validation leaves them, the reason planted for each (None for most), and when retention ran out."""

    triplets: pl.DataFrame
    planted: pl.DataFrame
    expired_through: float


def crowd(num_votes: int, *, votes_per_answer: float = 5.0, seed: int = 0) -> Crowd:
    """About `num_votes` thumbs on answers to prompts of 12 to 40 words."""
    rng = np.random.default_rng(seed)
    num_answers = max(int(num_votes / votes_per_answer), 20)
    num_raters = max(num_votes // VOTES_PER_RATER, 40)
    texts = _texts(rng, num_answers)
    is_good = rng.random(num_answers) < 0.6
    honest = _honest(rng, num_votes, num_raters, is_good)
    ends = START_S + 60 * DAY_S
    parts = [honest]
    parts.append(_again(rng, honest, int(num_votes * DUPLICATES)))
    liked = np.arange(int(num_votes * NEAR_DUPLICATES / votes_per_answer)) + num_answers
    parts.append(_alone(rng, liked, "first", [True, True], None))
    parts.append(_alone(rng, liked + num_answers, "copier", [True], "near_duplicate"))
    torn = np.arange(int(num_answers * CONTRADICTIONS)) + 3 * num_answers
    parts.append(_alone(rng, torn, "torn", [True, False], "contradictory"))
    parts.append(_brigade(rng, num_answers, ends))
    votes = pl.concat(parts).with_columns(created_at=pl.col("created_at").clip(START_S, ends))
    votes = _unusable(rng, votes.with_row_index("number"))
    table = votes.join(_with_copies(rng, texts, liked, torn, num_answers), on="answer_number", how="left")
    return _as_triplets(table, ends)


def score(found: pl.DataFrame, planted: pl.DataFrame) -> dict[str, tuple[float, float]]:
    """Precision and recall of each detector: `found` and `planted` are (triplet_id, reason)."""
    both = planted.join(found, on="triplet_id", how="full", suffix="_found", coalesce=True)
    scores = {}
    for reason in DETECTED:
        is_planted = (pl.col("reason") == reason).fill_null(False)
        is_found = (pl.col("reason_found") == reason).fill_null(False)
        hits, told, there = both.select(
            hits=(is_planted & is_found).sum(), told=is_found.sum(), there=is_planted.sum()
        ).row(0)
        scores[reason] = (hits / max(told, 1), hits / max(there, 1))
    return scores


def _texts(rng: np.random.Generator, count: int) -> pl.DataFrame:
    letters = rng.integers(ord("a"), ord("z") + 1, (VOCABULARY, 9)).astype(np.uint8)
    words = np.array([row[: 2 + n % 8].tobytes().decode() for n, row in enumerate(letters)])

    def say(low: int, high: int) -> list[str]:
        drawn = words[np.minimum(rng.zipf(1.3, (count, high)) - 1, VOCABULARY - 1)]
        return [" ".join(row[:size]) for row, size in zip(drawn.tolist(), rng.integers(low, high, count), strict=True)]

    return pl.DataFrame({"prompt": say(12, 40), "response": say(20, 70)})


def _honest(rng: np.random.Generator, num_votes: int, num_raters: int, is_good: np.ndarray) -> pl.DataFrame:
    """Each rater votes on some answers, once; a liar says the opposite of what they think."""
    rater, answer = rng.integers(0, num_raters, num_votes), rng.integers(0, len(is_good), num_votes)
    is_liar = rater < num_raters * LIARS
    is_up = is_good[answer] ^ (rng.random(num_votes) < MISTAKES) ^ is_liar
    times = START_S + rng.random(num_votes) * 50 * DAY_S
    votes = pl.DataFrame({"rater": rater, "answer_number": answer, "is_up": is_up, "created_at": times})
    return votes.unique(["rater", "answer_number"], keep="first", maintain_order=True).select(
        subject_id=pl.format("rater-{}", "rater"),
        answer_number="answer_number",
        is_up="is_up",
        created_at="created_at",
        interaction_id=pl.format("i-{}", "answer_number"),
        account_age_days=pl.lit(400.0),
        comment=pl.lit(None, dtype=pl.String),
        planted=pl.when(pl.col("rater") < num_raters * LIARS).then(pl.lit("unreliable_rater")),
    )


def _again(rng: np.random.Generator, votes: pl.DataFrame, count: int) -> pl.DataFrame:
    """Earlier votes of the same subjects on equal answers that were served to them before."""
    honest = votes.filter(pl.col("planted").is_null())
    some = honest[rng.choice(len(honest), count, replace=False)]
    return some.with_columns(
        created_at=pl.col("created_at") - 3600,
        interaction_id=pl.format("{}-before", "interaction_id"),
        planted=pl.lit("duplicate"),
    )


def _alone(
    rng: np.random.Generator, answers: np.ndarray, who: str, said: list[bool], planted: str | None
) -> pl.DataFrame:
    """One vote of each opinion on each answer, by people who vote nowhere else."""
    votes = (
        pl.DataFrame({"answer_number": answers}).join(pl.DataFrame({"is_up": said}), how="cross").with_row_index("n")
    )
    return votes.select(
        subject_id=pl.format(f"{who}-{{}}", "n"),
        answer_number="answer_number",
        is_up="is_up",
        created_at=pl.Series(START_S + rng.random(len(votes)) * 50 * DAY_S),
        interaction_id=pl.format(f"i-{who}-{{}}", "n"),
        account_age_days=pl.lit(400.0),
        comment=pl.lit(None, dtype=pl.String),
        planted=pl.lit(planted, dtype=pl.String),
    )


def _brigade(rng: np.random.Generator, num_answers: int, ends: float) -> pl.DataFrame:
    targets = rng.choice(num_answers, 20, replace=False)
    votes = pl.DataFrame({"n": range(BRIGADE)}).join(pl.DataFrame({"answer_number": targets}), how="cross")
    return votes.select(
        subject_id=pl.format("brigade-{}", "n"),
        answer_number="answer_number",
        is_up=pl.lit(False),
        created_at=pl.Series(ends - rng.random(len(votes)) * 1800),
        interaction_id=pl.format("i-brigade-{}-{}", "n", "answer_number"),
        account_age_days=pl.lit(1.0),
        comment=pl.lit("this model is rubbish, vote it down"),
        planted=pl.lit("held_for_review"),
    )


def _unusable(rng: np.random.Generator, votes: pl.DataFrame) -> pl.DataFrame:
    """Of honest votes: some whose subject did not consent, some kept for too long, some taken back."""
    draw = pl.Series(rng.random(len(votes)))
    edges = np.cumsum([UNWILLING, EXPIRED, RETRACTED])
    reason = (
        pl.when(draw < edges[0])
        .then(pl.lit("no_consent"))
        .when(draw < edges[1])
        .then(pl.lit("expired"))
        .when(draw < edges[2])
        .then(pl.lit("retracted"))
    )
    is_plain = pl.col("planted").is_null() & ~pl.col("interaction_id").is_in(
        votes.filter(pl.col("planted") == "duplicate")["interaction_id"].str.strip_suffix("-before").implode()
    )
    return votes.with_columns(planted=pl.when(is_plain).then(reason).otherwise("planted"))


def _with_copies(
    rng: np.random.Generator, texts: pl.DataFrame, liked: np.ndarray, torn: np.ndarray, num_answers: int
) -> pl.DataFrame:
    """Texts by answer number: the crowd's own, liked ones, their copies with another last word, divisive ones."""
    first = _texts(rng, len(liked))
    copies = first.with_columns(pl.col("prompt", "response").str.replace(r"\w+$", "altogether"))
    numbers = [np.arange(num_answers), liked, liked + num_answers, torn]
    own = zip([texts, first, copies, _texts(rng, len(torn))], numbers, strict=True)
    return pl.concat([part.with_columns(answer_number=pl.Series(found)) for part, found in own])


def _as_triplets(votes: pl.DataFrame, ends: float) -> Crowd:
    said = pl.struct(content="prompt", role=pl.lit("user")).struct.json_encode()
    is_planted = {reason: pl.col("planted") == reason for reason in ("no_consent", "expired", "retracted")}
    expired_through = ends + DAY_S
    table = votes.select(
        "interaction_id",
        "subject_id",
        "response",
        "created_at",
        "account_age_days",
        "comment",
        "planted",
        triplet_id=pl.format("t-{}", pl.col("number").cast(pl.String).str.zfill(9)),
        conversation_id=pl.format("c-{}", "answer_number"),
        messages=pl.format("[{}]", said),
        value_num=pl.when("is_up").then(1.0).otherwise(-1.0),
        served_at=pl.col("created_at") - 60,
        consent_training=pl.when(is_planted["no_consent"].fill_null(False))
        .then(pl.lit("unknown"))
        .otherwise(pl.lit("granted")),
        retention_until=pl.when(is_planted["expired"].fill_null(False)).then(expired_through),
        is_retracted=is_planted["retracted"].fill_null(False),
        kind=pl.lit("thumb"),
        tenant=pl.lit("default"),
        is_tie=pl.lit(False),
        finish_reason=pl.lit("stop"),
        source=pl.lit("human"),
        base_model=pl.lit("tiny"),
        adapter_name=pl.lit("base"),
        adapter_version=pl.lit("0"),
        adapter_digest=pl.lit("base"),
        arm=pl.lit("primary"),
    ).sort("triplet_id")
    planted = table.select("triplet_id", reason="planted").drop_nulls()
    return Crowd(table.drop("planted"), planted, expired_through)
