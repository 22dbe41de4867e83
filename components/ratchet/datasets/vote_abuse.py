"""Hold back suspected brigading (coordinated vote manipulation), and cap each voter's share of a dataset.

A vote is held for review while its rater shows two signs of brigading and it is younger than `hold_hours`. A later
build admits it, when other votes on the same answers have shown how reliable its rater is (`reliability`). Ages are
relative to the newest vote, never to a clock.
"""

import numpy as np
import polars as pl

from ratchet.clock import DAY_S, HOUR_S
from ratchet.config import BuildDatasets

MIN_CROWD = 20  # subjects; among fewer, every one is an outlier
MIN_SIGNS = 2  # signs; one alone has innocent reasons
MIN_VOTES = 5  # with fewer, a rater shows no pattern
MAX_Z = 4.0  # of a rater's share of up votes against others' on the same adapters: 1 in 16 000 by chance
BURST_VOTES = 15  # within an hour
YOUNG_DAYS = 2.0
MIN_COPIES, MIN_COMMENT_CHARS = 3, 12  # subjects with one comment; shorter ones ("thanks") repeat by chance
MIN_TOGETHER, TOGETHER = 5, 0.8  # votes in common; Jaccard
FAIR_SHARES = 3  # multiples of a rater's fair share that are always allowed


def brigading_signs(votes: pl.DataFrame) -> pl.DataFrame:
    """Return (subject, num_signs) for every subject with a sign of brigading. `votes` are eligible signals."""
    flagged = [subjects.unique() for subjects in (_one_way(votes), _bursts(votes), _young(votes), _copies(votes))]
    # Acting together is costly to find and counts only with another sign, so it is looked for among the flagged.
    suspects = votes.join(pl.concat(flagged), on="subject", how="semi")
    signs = pl.concat([*flagged, _together(suspects)])
    return signs.group_by("subject").agg(pl.len().alias("num_signs")).sort("subject")


def held_for_review(signals: pl.DataFrame, hold_hours: float) -> pl.DataFrame:
    """Return (row) of the votes that are held for review."""
    if signals["subject"].n_unique() < MIN_CROWD:
        return signals.clear().select("row")
    newest = signals.select(pl.col("created_at").max()).item()
    suspects = brigading_signs(signals).filter(pl.col("num_signs") >= MIN_SIGNS)
    is_young = pl.col("created_at") > newest - hold_hours * HOUR_S
    return signals.filter(is_young).join(suspects, on="subject", how="semi").select("row")


def over_cap(signals: pl.DataFrame, settings: BuildDatasets) -> pl.DataFrame:
    """Return (row) of the votes over a subject's cap for a day or for the dataset: the latest ones.

    A multiple of a fair share is always allowed, since hired annotators are few and vote much.
    """
    votes = signals.select("row", "subject", "created_at", day=(pl.col("created_at") // DAY_S)).sort(
        "subject", "created_at", "row"
    )
    daily = votes.with_columns(
        place=place_in("subject", "day"),
        fair=FAIR_SHARES * pl.len().over("day") / pl.col("subject").n_unique().over("day"),
    )
    kept = daily.filter(pl.col("place") < pl.max_horizontal(pl.lit(settings.max_votes_per_day), "fair"))
    fair = FAIR_SHARES * len(kept) / max(1, kept["subject"].n_unique())
    most = max(settings.max_rater_share * len(kept), fair)
    kept = kept.filter(place_in("subject") < most)
    return votes.join(kept, on="row", how="anti").select("row")


def place_in(*group: str) -> pl.Expr:
    """Return a row's index in its group, from 0. Rows of a group must be adjacent; a window costs ten times as much."""
    place = pl.int_range(pl.len())
    is_first = pl.any_horizontal(pl.col(name) != pl.col(name).shift() for name in group).fill_null(True)
    return place - pl.when(is_first).then(place).forward_fill()


def _ballots(votes: pl.DataFrame) -> pl.DataFrame:
    return votes.filter(pl.col("kind").is_in(["thumb", "rating"]))


def _one_way(votes: pl.DataFrame) -> pl.DataFrame:
    """Return subjects whose up votes are an outlier, by z-score against others' votes on the same adapters."""
    ballots = _ballots(votes).with_columns(pl.col("is_up").cast(pl.Int64))
    expected = (pl.col("is_up").sum().over("adapter") + 1) / (pl.len().over("adapter") + 2)
    raters = (
        ballots.with_columns(expected=expected)
        .group_by("subject")
        .agg(pl.len().alias("num"), pl.col("is_up").sum().alias("up"), pl.col("expected").mean().round(6))
    )
    spread = (pl.col("num") * pl.col("expected") * (1 - pl.col("expected"))).sqrt()
    z = (pl.col("up") - pl.col("num") * pl.col("expected")).abs() / spread
    return raters.filter(pl.col("num") >= MIN_VOTES, z >= MAX_Z).select("subject")


def _bursts(votes: pl.DataFrame) -> pl.DataFrame:
    timed = votes.select("subject", "created_at").sort("subject", "created_at")
    earlier = pl.all().shift(BURST_VOTES - 1).name.prefix("earlier_")
    is_burst = (pl.col("subject") == pl.col("earlier_subject")) & (
        pl.col("created_at") - pl.col("earlier_created_at") <= HOUR_S
    )
    return timed.with_columns(earlier).filter(is_burst).select("subject")


def _young(votes: pl.DataFrame) -> pl.DataFrame:
    """Return subjects with a new account and many votes."""
    raters = votes.group_by("subject").agg(pl.len().alias("num"), pl.col("account_age_days").min())
    return raters.filter(pl.col("num") >= MIN_VOTES, pl.col("account_age_days") < YOUNG_DAYS).select("subject")


def _copies(votes: pl.DataFrame) -> pl.DataFrame:
    commented = votes.filter(pl.col("comment").str.len_chars() >= MIN_COMMENT_CHARS)
    is_copied = pl.col("subject").n_unique().over("comment") >= MIN_COPIES
    return commented.filter(is_copied).select("subject")


def _together(votes: pl.DataFrame) -> pl.DataFrame:
    """Return subjects whose (answer, opinion) sets have a Jaccard similarity of `TOGETHER` with another's."""
    from scipy.sparse import csr_array

    cast = _ballots(votes).select("subject", vote=pl.struct("prompt", "answer", "is_up").hash()).unique()
    cast = cast.filter(pl.len().over("vote") > 1)
    cast = cast.filter(pl.len().over("subject") >= MIN_TOGETHER).sort("subject", "vote")
    if cast.is_empty():
        return cast.select("subject")
    subjects, rater = np.unique(cast["subject"].to_numpy(), return_inverse=True)
    vote = np.unique(cast["vote"].to_numpy(), return_inverse=True)[1]
    given = csr_array((np.ones(len(rater), dtype=np.int32), (rater, vote)))
    common = (given @ given.T).tocoo()
    # Sizes count all their votes, also unshared ones: two people who share five of five hundred share little.
    totals = _ballots(votes).join(cast.select("subject").unique(), on="subject", how="semi").group_by("subject").len()
    sizes = totals.sort("subject")["len"].to_numpy().astype(np.int64)
    is_pair = (common.row != common.col) & (common.data >= MIN_TOGETHER)
    one, other, shared = common.row[is_pair], common.col[is_pair], common.data[is_pair]
    jaccard = shared / (sizes[one] + sizes[other] - shared)
    return pl.DataFrame({"subject": subjects[np.unique(one[jaccard >= TOGETHER])]})
