"""Turn eligible signals into SFT, DPO and KTO rows with weights and the votes behind them. All on keys."""

from dataclasses import dataclass

import polars as pl

from ratchet.config import BuildDatasets
from ratchet.datasets.eligibility import INELIGIBLE_REASONS, VOTES, is_explicit
from ratchet.datasets.reliability import trusted
from ratchet.datasets.vote_abuse import held_for_review, over_cap, place_in
from ratchet.datasets.weights import FACTORS, MILLI, agreement, is_unsure, opposed_flip, smoothed, stable, weight

REASONS = (
    *INELIGIBLE_REASONS,
    "held_for_review",  # suspected brigading, still within the hold
    "unreliable_rater",  # right less often than a coin
    "over_rater_cap",
    "implicit_only",  # agrees with no explicit signal on the same answer
    "tie",
    "contradictory",  # the votes cancel out
    "near_duplicate",  # of a row that stays
)
# An edit that changes a larger share of the words is another answer: worth imitating, but no contrast for a pair.
MAX_EDIT = 0.6
MAX_LENGTH_RATIO = 3  # of two answers not compared directly: beyond it, a pair would teach length
# Added to the weight of a like (or, if negative, a dislike) that an explicit vote expressed; `implicit_weight` caps
# the sum.
IMPLICIT = {"copy": 0.15, "accept": 0.15, "click": 0.05, "dwell_ms": 0.05, "regenerate": -0.1, "abandon": -0.05}

WEIGHT_COLUMNS = {**dict.fromkeys(FACTORS, pl.Float64), "weight": pl.Float64}


@dataclass(frozen=True)
class Rows:
    """Rows of each kind, and (row, reason) for every triplet that is in none.

    SFT has `prompt, answer`, DPO `prompt, chosen, rejected`, KTO `prompt, answer, label`, as keys; each has the
    factors of its weight, `weight`, and `votes`: the triplets that it was made from.
    """

    sft: pl.DataFrame
    dpo: pl.DataFrame
    kto: pl.DataFrame
    drops: pl.DataFrame


def make_rows(judged: pl.DataFrame, settings: BuildDatasets, lengths: pl.Series) -> Rows:
    """Make rows from keys (`assess_eligibility`), independent of their order; `lengths` are characters by text key."""
    signals, refused = _admit(judged, settings)
    comparisons, undecided = _compare(signals, settings)
    answers, cancelled = _count_votes(signals, settings)
    # (prompt, answer) of truncated answers: their last token is not an end of turn
    truncated = [
        judged.filter("is_cut").select("prompt", "answer"),
        judged.filter("is_other_cut").select("prompt", answer="other").drop_nulls(),
    ]
    cut_off = pl.concat(truncated).unique()
    weak = _regenerated(judged, settings, lengths)
    pairs = _choose_pairs(comparisons, answers, weak, settings)
    for side in ("chosen", "rejected"):
        cut = cut_off.rename({"answer": side}).with_columns(pl.lit(False).alias(f"{side}_ends"))
        pairs = pairs.join(cut, on=["prompt", side], how="left", maintain_order="left")
    pairs = pairs.with_columns(pl.col("chosen_ends", "rejected_ends").fill_null(True))
    sft, beaten = _targets(signals, comparisons, answers, settings)
    sft = sft.join(cut_off, on=["prompt", "answer"], how="anti")  # as a target, it would teach stopping mid-sentence
    kto = _corroborated(answers.with_columns(label=pl.col("share") > 0.5), judged, settings)
    learnt = [*WEIGHT_COLUMNS, "votes"]
    pairs = pairs.select("prompt", "chosen", "rejected", "chosen_ends", "rejected_ends", "flip_probability", *learnt)
    rows = (sft.select("prompt", "answer", *learnt), pairs, kto.select("prompt", "answer", "label", *learnt))
    return Rows(*rows, drop_reasons(judged, rows, [judged, refused, cancelled, undecided, beaten]))


def drop_reasons(judged: pl.DataFrame, rows: tuple[pl.DataFrame, ...], reasons: list[pl.DataFrame]) -> pl.DataFrame:
    """Return (row, reason) of the triplets in no row; of several `reasons` frames the first one counts."""
    named = pl.concat([frame.select(row=pl.col("votes").explode()) for frame in rows])
    given = pl.concat([frame.select("row", "reason") for frame in reasons]).drop_nulls("reason")
    first = given.unique("row", keep="first", maintain_order=True)
    left = judged.select("row", "kind").join(named, on="row", how="anti").join(first, on="row", how="left")
    implicit = pl.when(~is_explicit()).then(pl.lit("implicit_only"))
    return left.select("row", reason=pl.coalesce("reason", implicit)).sort("row")


def _admit(judged: pl.DataFrame, settings: BuildDatasets) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return explicit signals that count, with `trust` and `caution`; and those kept out because of their rater."""
    signals = judged.filter(pl.col("reason").is_null(), is_explicit())
    waiting = held_for_review(signals, settings.hold_hours).with_columns(reason=pl.lit("held_for_review"))
    signals = trusted(signals.join(waiting, on="row", how="anti"))
    unreliable = signals.filter(pl.col("trust") == 0).select("row", reason=pl.lit("unreliable_rater"))
    signals = signals.filter(pl.col("trust") > 0)
    flood = over_cap(signals, settings).with_columns(reason=pl.lit("over_rater_cap"))
    caution = pl.when("is_risky").then(settings.injection_weight).otherwise(1.0)
    counted = signals.join(flood, on="row", how="anti").with_columns(caution=caution).sort("row")
    return counted, pl.concat([waiting, unreliable, flood])


def _counted(*more: pl.Expr) -> list[pl.Expr]:
    """Return the aggregates of a row's votes; sums are of whole numbers, so they do not depend on order."""
    return [
        pl.len().alias("num_votes"),
        pl.col("trust").sum().alias("total"),
        pl.col("recency", "exposure").max(),
        pl.col("caution").min(),
        pl.col("row").sort().alias("votes"),
        *more,
    ]


def _mean_trust() -> pl.Expr:
    return stable(pl.col("total") / (MILLI * pl.col("num_votes")))


def _compare(signals: pl.DataFrame, settings: BuildDatasets) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Aggregate preferences and corrections to one row for each pair of answers; also return undecided votes.

    A vote counts by its rater's trust; a tie counts half a vote each way.
    """
    prefers = signals.filter(pl.col("kind") == "preference").with_columns(
        winner="answer", loser="other", base=pl.lit(settings.preference_weight)
    )
    corrects = signals.filter(pl.col("kind") == "correction", pl.col("edit") <= MAX_EDIT).with_columns(
        winner="target", loser="answer", base=pl.lit(settings.correction_weight)
    )
    first, second = pl.min_horizontal("winner", "loser"), pl.max_horizontal("winner", "loser")
    halves = pl.col("trust") * pl.when("is_tie").then(1).when(pl.col("winner") == first).then(2).otherwise(0)
    ballots = pl.concat([prefers, corrects]).with_columns(first=first, second=second, halves=halves)
    ballots = ballots.filter(pl.col("first") != pl.col("second"))
    pairs = ballots.group_by("prompt", "first", "second").agg(*_counted(pl.col("halves").sum(), pl.col("base").max()))
    is_first = pl.col("halves") > pl.col("total")
    majority = pl.max_horizontal("halves", 2 * pl.col("total") - pl.col("halves"))
    share = majority / (2 * pl.col("total"))
    is_even = is_unsure_pair(share)
    decided = pairs.filter(~is_even).with_columns(
        chosen=pl.when(is_first).then("first").otherwise("second"),
        rejected=pl.when(is_first).then("second").otherwise("first"),
        share=share,
        margin=agreement(share),
        agreement=stable(agreement(share)),
        reliability=_mean_trust(),
        flip_probability=stable(smoothed((1 - share) * pl.col("total") / MILLI, pl.col("total") / MILLI)),
    )
    undecided = ballots.join(pairs.filter(is_even), on=["prompt", "first", "second"], how="semi").with_columns(
        reason=pl.when("is_tie").then(pl.lit("tie")).otherwise(pl.lit("contradictory"))
    )
    return decided.with_columns(weight=weight()), undecided


def is_unsure_pair(majority: pl.Expr) -> pl.Expr:
    """Return where a comparison is undecided: any majority decides, and the weight shows how large it was."""
    return majority == 0.5


def _count_votes(signals: pl.DataFrame, settings: BuildDatasets) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Aggregate votes to one row for each answer, with the `share` of up votes; also return votes that cancel out."""
    votes = signals.filter(pl.col("kind").is_in(VOTES))
    up = (pl.col("trust") * pl.col("is_up")).sum().alias("up_votes")
    answers = votes.group_by("prompt", "answer").agg(*_counted(up))
    answers = answers.with_columns(share=pl.col("up_votes") / pl.col("total")).with_columns(
        base=pl.lit(settings.thumb_weight),
        agreement=stable(agreement(pl.col("share"))),
        reliability=_mean_trust(),
        up=smoothed(pl.col("up_votes") / MILLI, pl.col("total") / MILLI),
    )
    unsure = answers.filter(is_unsure(pl.col("share")))
    cancelled = votes.join(unsure, on=["prompt", "answer"], how="semi")
    sure = answers.filter(~is_unsure(pl.col("share"))).with_columns(weight=weight())
    return sure, cancelled.with_columns(reason=pl.lit("contradictory"))


def _corroborated(answers: pl.DataFrame, judged: pl.DataFrame, settings: BuildDatasets) -> pl.DataFrame:
    """Raise the weight of labelled answers that implicit signals agree with, and add these to the answer's votes."""
    hints = judged.filter(pl.col("reason").is_null(), ~is_explicit())
    worth = pl.col("kind").replace_strict(IMPLICIT, return_dtype=pl.Float64)
    hints = hints.with_columns(worth=worth).join(answers.select("prompt", "answer", "label"), on=["prompt", "answer"])
    agreeing = hints.filter((pl.col("worth") > 0) == pl.col("label"))
    # In hundredths, to add up to the same sum in any order.
    support = (pl.col("worth").abs() * 100).round().cast(pl.Int64).sum() / 100
    supported = agreeing.group_by("prompt", "answer").agg(
        support.clip(0, settings.implicit_weight).alias("support"), pl.col("row").alias("hints")
    )
    joined = answers.join(supported, on=["prompt", "answer"], how="left")
    is_supported = pl.col("support").is_not_null()
    return joined.with_columns(
        base=stable(pl.col("base") + pl.col("support").fill_null(0)),
        votes=pl.when(is_supported).then(pl.concat_list("votes", pl.col("hints")).list.sort()).otherwise("votes"),
    ).with_columns(weight=weight())


def _regenerated(judged: pl.DataFrame, settings: BuildDatasets, lengths: pl.Series) -> pl.DataFrame:
    """Return weak pairs: a regenerated answer as rejected, the one that the same subject then took as chosen."""
    usable = judged.filter(pl.col("reason").is_null())
    refused = usable.filter(pl.col("kind") == "regenerate").select(
        "subject", "prompt", parent="interaction", rejected="answer", votes_rejected="row"
    )
    is_taken = pl.col("kind").is_in(["accept", "copy"]) | (pl.col("kind").is_in(VOTES) & pl.col("is_up"))
    taken = usable.filter(is_taken, pl.col("parent").is_not_null())
    retaken = taken.join(refused, on=["subject", "prompt", "parent"]).filter(pl.col("answer") != pl.col("rejected"))
    sizes = retaken.with_columns(
        one=lengths.gather(retaken["answer"]).cast(pl.Float64) + 1, other_size=lengths.gather(retaken["rejected"]) + 1.0
    )
    ratio = pl.max_horizontal("one", "other_size") / pl.min_horizontal("one", "other_size")
    caution = pl.when("is_risky").then(settings.injection_weight).otherwise(1.0)
    alike = sizes.filter(ratio <= MAX_LENGTH_RATIO).with_columns(caution=caution)
    pairs = alike.group_by("prompt", chosen="answer", rejected="rejected").agg(
        pl.col("recency", "exposure").max(),
        pl.col("caution").min(),
        pl.concat_list("row", "votes_rejected")
        .list.explode(keep_nulls=False, empty_as_null=False)
        .unique()
        .sort()
        .alias("votes"),
    )
    return pairs.with_columns(
        base=pl.lit(settings.regenerated_weight),
        reliability=pl.lit(1.0),
        agreement=pl.lit(1.0),
        margin=pl.lit(0.0),
        flip_probability=stable(smoothed(pl.lit(0.0), pl.lit(settings.regenerated_weight))),
    ).with_columns(weight=weight())


def _choose_pairs(
    comparisons: pl.DataFrame, answers: pl.DataFrame, weak: pl.DataFrame, settings: BuildDatasets
) -> pl.DataFrame:
    """Return all direct comparisons, filled up to `max_pairs_per_prompt` with indirect pairs, widest margin first."""
    ways, back = ["prompt", "chosen", "rejected"], ["prompt", "rejected", "chosen"]
    columns = [*ways, *WEIGHT_COLUMNS, "flip_probability", "votes", "margin"]
    opposed = _oppose(answers, settings)
    weak = weak.join(opposed, on=ways, how="anti").join(opposed, left_on=ways, right_on=back, how="anti")
    indirect = pl.concat([opposed.select(columns), weak.select(columns)])
    indirect = indirect.join(comparisons, on=ways, how="anti").join(
        comparisons, left_on=ways, right_on=back, how="anti"
    )
    ranked = pl.concat([comparisons.select(*columns, is_direct=True), indirect.select(*columns, is_direct=False)]).sort(
        "prompt", "is_direct", "margin", "chosen", "rejected", descending=[False, True, True, False, False]
    )
    place = place_in("prompt")
    return ranked.filter(pl.col("is_direct") | (place < settings.max_pairs_per_prompt))


def _oppose(answers: pl.DataFrame, settings: BuildDatasets) -> pl.DataFrame:
    """Pair liked with disliked answers to one prompt: hard negatives, since prompt and users are the same.

    The k widest margins are among the k best and the k worst, so a popular prompt needs no quadratic join.
    """
    best = _top(answers.filter(pl.col("share") > 0.5), settings.max_pairs_per_prompt, descending=True)
    worst = _top(answers.filter(pl.col("share") < 0.5), settings.max_pairs_per_prompt, descending=False)
    agreed = pl.col("share") - pl.col("share_worst")  # half the distance between mean votes of +1 and -1
    return (
        best.join(worst, on="prompt", suffix="_worst")
        .select(
            "prompt",
            pl.max_horizontal("recency", "recency_worst").alias("recency"),
            pl.max_horizontal("exposure", "exposure_worst").alias("exposure"),
            pl.min_horizontal("reliability", "reliability_worst").alias("reliability"),
            pl.min_horizontal("caution", "caution_worst").alias("caution"),
            chosen="answer",
            rejected="answer_worst",
            base=pl.lit(settings.opposed_weight),
            agreement=stable(agreed),
            flip_probability=stable(opposed_flip(pl.col("up"), pl.col("up_worst"))),
            votes=pl.concat_list("votes", "votes_worst").list.sort(),
            margin=pl.col("up") - pl.col("up_worst"),
        )
        .with_columns(weight=weight())
    )


def _top(answers: pl.DataFrame, count: int, *, descending: bool) -> pl.DataFrame:
    ordered = answers.sort("prompt", "up", "answer", descending=[False, descending, False])
    return ordered.filter(place_in("prompt") < count)


def _targets(
    signals: pl.DataFrame, comparisons: pl.DataFrame, answers: pl.DataFrame, settings: BuildDatasets
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return SFT targets (corrections, liked answers, clear winners), and the corrections that lost elsewhere.

    If an answer is a target for several reasons, the heaviest sets the weight, and the votes of all are kept.
    """
    edits = (
        signals.filter(pl.col("kind") == "correction")
        .with_columns(
            answer="target",
            base=pl.lit(settings.correction_weight),
            agreement=pl.lit(1.0),
            reliability=stable(pl.col("trust") / MILLI),
            votes=pl.concat_list("row"),
        )
        .with_columns(weight=weight())
    )
    liked = answers.filter(pl.col("share") > 0.5)
    preferred = comparisons.filter(~is_unsure(pl.col("share"))).with_columns(answer="chosen")
    disliked = answers.filter(pl.col("share") < 0.5).select("prompt", "answer")
    lost = pl.concat([comparisons.select("prompt", answer="rejected"), disliked])
    columns = ["prompt", "answer", *WEIGHT_COLUMNS, "votes"]
    good = pl.concat([frame.select(columns) for frame in (edits, liked, preferred)])
    targets = _heaviest(good.join(lost, on=["prompt", "answer"], how="anti"))
    beaten = edits.join(lost, on=["prompt", "answer"], how="semi").with_columns(reason=pl.lit("contradictory"))
    return targets, beaten


def _heaviest(good: pl.DataFrame) -> pl.DataFrame:
    same = ["prompt", "answer"]
    is_alone = pl.len().over(same) == 1
    alone, several = good.filter(is_alone), good.filter(~is_alone)
    votes = several.select(*same, "votes").explode("votes").unique().sort("votes").group_by(same).agg("votes")
    heaviest = several.sort("weight", *WEIGHT_COLUMNS, descending=True).unique(same, keep="first", maintain_order=True)
    return pl.concat([alone, heaviest.drop("votes").join(votes, on=same).select(alone.columns)])
