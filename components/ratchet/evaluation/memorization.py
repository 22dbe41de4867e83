"""Training text in a model's own words: runs of words that also stand in what it was trained to say."""

import json
from collections.abc import Iterable
from pathlib import Path

from ratchet.evaluation.text_checks import word_runs


def seen_in_training(dataset: Path, answers: Iterable[str]) -> frozenset[str]:
    """The answers' runs of words that the dataset's training answers hold. One pass of Rust over the texts."""
    import polars as pl

    runs = sorted({run for answer in answers for run in word_runs(answer)})
    if not runs:
        return frozenset()
    chats = pl.read_parquet(dataset / "sft-train.parquet", columns=["messages"])["messages"]
    imitated = [json.loads(chat)[-1]["content"] for chat in chats]
    preferred = pl.read_parquet(dataset / "dpo-train.parquet", columns=["chosen"])["chosen"]
    texts = pl.concat([pl.Series(imitated, dtype=pl.String), preferred.alias("")])
    words = pl.format(" {} ", pl.lit(texts).str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars())
    found = pl.select(words.str.extract_many([f" {run} " for run in runs], overlapping=True)).to_series()
    return frozenset(run.strip() for run in found.explode().drop_nulls())
