"""Turn signals into rows to learn from: which answer, against which, how sure, and who said so."""

import json
from dataclasses import dataclass

import polars as pl

from ratchet.config import BuildDatasets
from ratchet.datasets.signals import SILENT, judge
from ratchet.datasets.weights import agreement, is_unsure, opposed_flip, smoothed, stable
from ratchet.digest import canonical_json

REASONS = (
    *SILENT,
    "tie",
    "contradictory",  # the votes cancel out
)
# An edit that changes more of the words is another answer: worth imitating, but it says little about what was wrong.
MAX_EDIT = 0.6

SFT = {"messages": pl.String, "weight": pl.Float64, "feedback_ids": pl.List(pl.String)}
DPO = {
    "prompt": pl.String, "chosen": pl.String, "rejected": pl.String,
    "chosen_ends": pl.Boolean, "rejected_ends": pl.Boolean,
    "weight": pl.Float64, "flip_probability": pl.Float64, "feedback_ids": pl.List(pl.String),
}  # fmt: skip
KTO = {
    "prompt": pl.String, "completion": pl.String, "label": pl.Boolean,
    "weight": pl.Float64, "feedback_ids": pl.List(pl.String),
}  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Rows of each kind, and (triplet_id, reason) for every triplet that no row names.

    Prompts are canonical JSON; an SFT row has, besides the columns of its file, its `prompt`.
    """

    sft: pl.DataFrame
    dpo: pl.DataFrame
    kto: pl.DataFrame
    drops: pl.DataFrame


def make_rows(triplets: pl.DataFrame, settings: BuildDatasets) -> Rows:
    """Rows from validated triplets with their `prompt` (see `signals.with_prompts`), the same whatever their order."""
    judged = judge(triplets, settings.half_life_days)
    signals = judged.filter(pl.col("reason").is_null())
    comparisons, undecided = _compare(signals, settings)
    answers, cancelled = _count_votes(signals, settings)
    cut_off = _cut_off(triplets)
    pairs = _mark_ends(_choose_pairs(comparisons, answers, settings), cut_off)
    sft, beaten = _targets(signals, comparisons, answers, settings)
    sft = sft.join(cut_off, on=["prompt", "text"], how="anti")  # imitated, it would teach to stop in mid-sentence
    kto = answers.rename({"response": "completion"}).with_columns(label=pl.col("share") > 0.5)
    rows = (sft.select("prompt", *SFT), pairs.select(*DPO), kto.select(*KTO))
    return Rows(*rows, _unnamed(triplets, rows, [judged, cancelled, undecided, beaten]))


def _cut_off(triplets: pl.DataFrame) -> pl.DataFrame:
    """(prompt, text) of the answers that the length limit ended: their last token is no end of turn."""
    answers = triplets.select("prompt", "finish_reason", text="response")
    others = triplets.select("prompt", finish_reason="other_finish_reason", text="other_response")
    return pl.concat([answers, others]).filter(pl.col("finish_reason") == "length").select("prompt", "text").unique()


def _mark_ends(pairs: pl.DataFrame, cut_off: pl.DataFrame) -> pl.DataFrame:
    for side in ("chosen", "rejected"):
        cut = cut_off.rename({"text": side}).with_columns(pl.lit(False).alias(f"{side}_ends"))
        pairs = pairs.join(cut, on=["prompt", side], how="left", maintain_order="left")
    return pairs.with_columns(pl.col("chosen_ends", "rejected_ends").fill_null(True))


def _compare(signals: pl.DataFrame, settings: BuildDatasets) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two answers judged against each other: one row a pair, with all votes on it; and the votes that decide nothing.

    A tie counts half a vote each way. Counts are in half votes, so that they add up exactly.
    """
    prefers = signals.filter(pl.col("kind") == "preference").with_columns(
        winner="response", loser="other_response", base=pl.lit(settings.preference_weight)
    )
    corrects = signals.filter(pl.col("kind") == "correction", pl.col("edit") <= MAX_EDIT).with_columns(
        winner="value_text", loser="response", base=pl.lit(settings.correction_weight)
    )
    first, second = pl.min_horizontal("winner", "loser"), pl.max_horizontal("winner", "loser")
    halves = pl.when("is_tie").then(1).when(pl.col("winner") == first).then(2).otherwise(0)
    ballots = pl.concat([prefers, corrects]).with_columns(first=first, second=second, halves=halves)
    pairs = ballots.group_by("prompt", "first", "second").agg(
        pl.len().alias("num_votes"), pl.col("halves").sum(), pl.col("base", "recency").max(), _ids()
    )
    is_first = pl.col("halves") > pl.col("num_votes")
    share = pl.max_horizontal(pl.col("halves"), 2 * pl.col("num_votes") - pl.col("halves")) / (2 * pl.col("num_votes"))
    is_even = pl.col("halves") == pl.col("num_votes")
    decided = pairs.filter(~is_even).with_columns(
        chosen=pl.when(is_first).then("first").otherwise("second"),
        rejected=pl.when(is_first).then("second").otherwise("first"),
        share=share,
        margin=agreement(share),
        weight=stable(pl.col("base") * agreement(share) * pl.col("recency")),
        flip_probability=stable(smoothed((1 - share) * pl.col("num_votes"), pl.col("num_votes"))),
    )
    undecided = ballots.join(pairs.filter(is_even), on=["prompt", "first", "second"], how="semi").with_columns(
        reason=pl.when("is_tie").then(pl.lit("tie")).otherwise(pl.lit("contradictory"))
    )
    return decided, undecided


def _count_votes(signals: pl.DataFrame, settings: BuildDatasets) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers judged alone: one row an answer, with the `share` of up votes; and the votes that cancel out."""
    votes = signals.filter(pl.col("kind").is_in(["thumb", "rating"]))
    answers = votes.group_by("prompt", "response").agg(
        pl.len().alias("num_votes"), pl.col("is_up").sum().alias("num_up"), pl.col("recency").max(), _ids()
    )
    answers = answers.with_columns(share=pl.col("num_up") / pl.col("num_votes")).with_columns(
        weight=stable(settings.thumb_weight * agreement(pl.col("share")) * pl.col("recency")),
        up=smoothed(pl.col("num_up"), pl.col("num_votes")),
    )
    unsure = answers.filter(is_unsure(pl.col("share")))
    cancelled = votes.join(unsure, on=["prompt", "response"], how="semi")
    return answers.filter(~is_unsure(pl.col("share"))), cancelled.with_columns(reason=pl.lit("contradictory"))


def _choose_pairs(comparisons: pl.DataFrame, answers: pl.DataFrame, settings: BuildDatasets) -> pl.DataFrame:
    """Every comparison that somebody made, filled up to `max_pairs_per_prompt` with opposed votes, widest first."""
    ways = ["prompt", "chosen", "rejected"]
    opposed = _oppose(answers, settings).join(comparisons, on=ways, how="anti")
    opposed = opposed.join(comparisons, left_on=ways, right_on=["prompt", "rejected", "chosen"], how="anti")
    columns = [name for name in DPO if not name.endswith("_ends")] + ["margin"]
    ranked = pl.concat([comparisons.select(columns, is_direct=True), opposed.select(columns, is_direct=False)]).sort(
        "prompt", "is_direct", "margin", "chosen", "rejected", descending=[False, True, True, False, False]
    )
    place = pl.int_range(pl.len()).over("prompt")
    return ranked.filter(pl.col("is_direct") | (place < settings.max_pairs_per_prompt))


def _oppose(answers: pl.DataFrame, settings: BuildDatasets) -> pl.DataFrame:
    """Liked against disliked answers to one prompt.

    The widest k margins lie among the k best and the k worst, so a popular prompt does not cost a quadratic join.
    """
    best = _top(answers.filter(pl.col("share") > 0.5), settings.max_pairs_per_prompt, descending=True)
    worst = _top(answers.filter(pl.col("share") < 0.5), settings.max_pairs_per_prompt, descending=False)
    agreed = pl.col("share") - pl.col("share_worst")  # half the distance between mean votes of +1 and -1
    newest = pl.max_horizontal("recency", "recency_worst")
    return best.join(worst, on="prompt", suffix="_worst").select(
        "prompt",
        chosen="response",
        rejected="response_worst",
        weight=stable(settings.opposed_weight * agreed * newest),
        flip_probability=stable(opposed_flip(pl.col("up"), pl.col("up_worst"))),
        feedback_ids=pl.concat_list("feedback_ids", "feedback_ids_worst").list.sort(),
        margin=pl.col("up") - pl.col("up_worst"),
    )


def _top(answers: pl.DataFrame, count: int, *, descending: bool) -> pl.DataFrame:
    ordered = answers.sort("prompt", "up", "response", descending=[False, descending, False])
    return ordered.group_by("prompt", maintain_order=True).head(count)


def _targets(
    signals: pl.DataFrame, comparisons: pl.DataFrame, answers: pl.DataFrame, settings: BuildDatasets
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Answers worth imitating: corrections, liked answers, winners of a clear majority; and corrections that lost."""
    edits = signals.filter(pl.col("kind") == "correction").with_columns(
        text="value_text",
        weight=stable(settings.correction_weight * pl.col("recency")),
        feedback_ids=pl.concat_list("triplet_id"),
    )
    liked = answers.filter(pl.col("share") > 0.5).with_columns(text="response")
    preferred = comparisons.filter(~is_unsure(pl.col("share"))).with_columns(text="chosen")
    disliked = answers.filter(pl.col("share") < 0.5).select("prompt", text="response")
    lost = pl.concat([comparisons.select("prompt", text="rejected"), disliked])
    columns = ["prompt", "text", "weight", "feedback_ids"]
    good = pl.concat([frame.select(columns) for frame in (edits, liked, preferred)])
    targets = (
        good.join(lost, on=["prompt", "text"], how="anti")
        .group_by("prompt", "text")
        .agg(pl.col("weight").max(), pl.col("feedback_ids").explode().unique().sort())
    )
    chats = [_answered(prompt, text) for prompt, text in targets.select("prompt", "text").iter_rows()]
    beaten = edits.join(lost, on=["prompt", "text"], how="semi").with_columns(reason=pl.lit("contradictory"))
    return targets.with_columns(messages=pl.Series(chats, dtype=pl.String)), beaten


def _answered(prompt: str, text: str) -> str:
    return canonical_json([*json.loads(prompt), {"role": "assistant", "content": text}]).decode()


def _unnamed(triplets: pl.DataFrame, rows: tuple[pl.DataFrame, ...], reasons: list[pl.DataFrame]) -> pl.DataFrame:
    """(triplet_id, reason) of the triplets that no row names; the first reason found is the one told."""
    named = pl.concat([frame.select(triplet_id="feedback_ids").explode("triplet_id") for frame in rows])
    told = pl.concat([frame.select("triplet_id", "reason") for frame in reasons]).drop_nulls("reason")
    first = told.unique("triplet_id", keep="first", maintain_order=True)
    unnamed = triplets.select("triplet_id").join(named, on="triplet_id", how="anti")
    return unnamed.join(first, on="triplet_id", how="left").sort("triplet_id")


def _ids() -> pl.Expr:
    return pl.col("triplet_id").sort().alias("feedback_ids")
