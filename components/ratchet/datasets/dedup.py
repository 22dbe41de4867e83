"""Deduplicate rows: of near-duplicate answers to near-duplicate prompts, keep the one with most votes."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from ratchet.compute.hashing import splitmix64
from ratchet.datasets.near_duplicates import components, near_duplicates
from ratchet.datasets.training_rows import Rows, drop_reasons

if TYPE_CHECKING:
    from ratchet.datasets.near_duplicates import Labels


def prompt_clusters(texts: pl.Series, threshold: float) -> "Labels":
    """Return the cluster of each prompt text: a connected component of near duplicates."""
    return components(len(texts), near_duplicates(texts, threshold))


def without_near_duplicates(rows: Rows, answers: pl.Series, judged: pl.DataFrame, threshold: float) -> Rows:
    """Drop SFT and KTO rows that are near duplicates of another with the same label and prompt `cluster`.

    DPO pairs stay: the difference between two nearly equal answers is what a pair teaches.
    """
    with ThreadPoolExecutor(2) as pool:
        finding = pool.submit(_best, rows.sft, answers, ["cluster"], threshold)
        kto = _best(rows.kto, answers, ["cluster", "label"], threshold)
        sft = finding.result()
    left = judged.select("row").join(rows.drops, on="row", how="anti")
    near = left.with_columns(reason=pl.lit("near_duplicate"))
    gone = drop_reasons(judged, (sft, rows.dpo, kto), [rows.drops, near])
    return replace(rows, sft=sft, kto=kto, drops=gone)


def _best(rows: pl.DataFrame, answers: pl.Series, same: list[str], threshold: float) -> pl.DataFrame:
    is_alone = pl.len().over(same) == 1
    crowd = rows.filter(~is_alone)
    texts = answers.gather(crowd["answer"])
    within = splitmix64(crowd.select(pl.struct(same).hash()).to_series().to_numpy().astype(np.uint64))
    labels = components(len(crowd), near_duplicates(texts, threshold, within=within))
    best = (
        crowd.with_columns(alike=pl.Series(labels), support=pl.col("votes").list.len())
        .sort("alike", "support", "weight", "prompt", "answer", descending=[False, True, True, False, False])
        .unique("alike", keep="first", maintain_order=True)
    )
    return pl.concat([rows.filter(is_alone), best.select(rows.columns)])
