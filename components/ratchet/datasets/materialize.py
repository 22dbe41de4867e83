"""Materialize a dataset: replace keys by texts, write its files, and index the row that each triplet went to."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa

from ratchet.compute.parquet import ROW_GROUP_ROWS, write_parquet
from ratchet.config import Config
from ratchet.datasets.augment import with_typos
from ratchet.datasets.interning import Interned
from ratchet.datasets.split import EVAL, RECENT, TRAIN, Split
from ratchet.datasets.training_rows import WEIGHT_COLUMNS, Rows

if TYPE_CHECKING:
    from collections.abc import Iterator

ORIGIN = {"feedback_ids": pl.List(pl.String), "group": pl.String, "synthetic": pl.Boolean}
SFT = {"messages": pl.String, **WEIGHT_COLUMNS, **ORIGIN}
DPO = {
    "prompt": pl.String, "chosen": pl.String, "rejected": pl.String,
    "chosen_ends": pl.Boolean, "rejected_ends": pl.Boolean, **WEIGHT_COLUMNS, "flip_probability": pl.Float64,
    "tenant": pl.String, **ORIGIN,
}  # fmt: skip
KTO = {"prompt": pl.String, "completion": pl.String, "label": pl.Boolean, **WEIGHT_COLUMNS, **ORIGIN}
KEYS = {"sft": ["prompt", "answer"], "dpo": ["prompt", "chosen", "rejected"], "kto": ["prompt", "answer"]}
SEVERAL = "several"
COUNTED = [*WEIGHT_COLUMNS, "group", "synthetic"]  # what the card counts of a written file
WRITERS = 2  # each holds the texts of a row group
FEEDBACK_INDEX_SCHEMA = {"feedback_id": pl.String, "file": pl.String, "place": pl.UInt32, "reason": pl.String}


def divide(rows: Rows, sides: Split, *, with_recent: bool) -> dict[str, pl.DataFrame]:
    """Divide the rows into tables on keys, `{sft,dpo,kto}-{train,eval}` and, if asked, `-recent`, in a total order."""
    files = {}
    for name, order in KEYS.items():
        placed = getattr(rows, name).join(sides.clusters, on="cluster", how="left", maintain_order="left").sort(order)
        for side in (TRAIN, EVAL, RECENT) if with_recent else (TRAIN, EVAL):
            files[f"{name}-{side}"] = placed.filter(pl.col("side") == side)
    return files


def write_out(name: str, table: pl.DataFrame, texts: Interned) -> pl.DataFrame:
    """Return one of the tables with texts and feedback ids in place of their keys."""
    ids = feedback_ids(table["votes"], texts.triplet_ids)
    named = table.with_columns(feedback_ids=ids, synthetic=pl.lit(False))
    prompt = texts.prompts.gather(table["prompt"]).alias("prompt")
    if name.startswith("dpo"):
        sides = [texts.answers.gather(table[side]).alias(side) for side in ("chosen", "rejected")]
        tenant = _tenants(table["votes"], texts.tenants)
        return named.with_columns(prompt, *sides, tenant=tenant).select(list(DPO))
    answer = texts.answers.gather(table["answer"])
    if name.startswith("kto"):
        return named.with_columns(prompt, completion=answer).select(list(KTO))
    # The chat with its answer appended, as canonical JSON like the prompt.
    turn = pl.struct(content="answer", role=pl.lit("assistant")).struct.json_encode()
    before = pl.col("prompt").str.strip_suffix("]")
    comma = pl.when(before == "[").then(pl.lit("")).otherwise(pl.lit(","))
    chat = pl.concat_str(before, comma, turn, pl.lit("]"))
    return named.with_columns(prompt, answer=answer).with_columns(messages=chat).select(list(SFT))


def write_files(
    folder: Path, files: dict[str, pl.DataFrame], triplets: Interned, config: Config
) -> dict[str, pl.DataFrame]:
    """Write `folder/<name>.parquet` for each table on keys; return the `COUNTED` columns of each file.

    Training files get their augmented copies after the rows that these are made from.
    """
    settings = config.build_datasets
    apart = held_out(files, triplets) if settings.augment_share else pl.Series(dtype=pl.String)

    def write(name: str, table: pl.DataFrame) -> pl.DataFrame:
        path = folder / f"{name}.parquet"
        if not (settings.augment_share and is_trained_on(name)):
            firsts = range(0, max(1, len(table)), ROW_GROUP_ROWS)
            write_parquet((write_out(name, table[at : at + ROW_GROUP_ROWS], triplets) for at in firsts), path)
            return table.with_columns(synthetic=pl.lit(False)).select(COUNTED)
        rows = write_out(name, table, triplets)
        rows = with_typos(rows, settings.augment_share, config.seed, held_out=apart, near=settings.near_duplicate)
        write_parquet(rows, path)
        return rows.select(COUNTED)

    with ThreadPoolExecutor(WRITERS) as pool:
        return dict(zip(files, pool.map(write, files, files.values()), strict=True))


def held_out(files: dict[str, pl.DataFrame], texts: Interned) -> pl.Series:
    """Return the distinct prompts of the files that are not trained on: no training prompt may be near one."""
    keys = [table["prompt"] for name, table in files.items() if not is_trained_on(name)]
    return texts.prompts.gather(pl.concat(keys).unique().sort())


def is_trained_on(name: str) -> bool:
    return name.endswith(f"-{TRAIN}")


def _tenants(votes: pl.Series, tenants: pl.Series) -> pl.Series:
    """Return the tenant of each pair; `several` if its votes come from more than one."""
    named = pl.DataFrame({"row": votes}).with_row_index("pair").explode("row", empty_as_null=True, keep_nulls=True)
    named = named.with_columns(tenant=tenants.gather(named["row"]))
    is_one = pl.col("tenant").n_unique() == 1
    by_pair = named.group_by("pair").agg(pl.when(is_one).then(pl.col("tenant").first()).otherwise(pl.lit(SEVERAL)))
    return by_pair.sort("pair")["tenant"]


def feedback_ids(votes: pl.Series, triplet_ids: pl.Series) -> pl.Series:
    """Replace lists of triplets' row numbers by lists of their feedback ids."""
    ends = np.cumsum(votes.list.len().to_numpy().astype(np.int64))
    if not len(ends):
        return pl.Series([], dtype=pl.List(pl.String))
    named = triplet_ids.gather(votes.explode()).to_arrow(compat_level=pl.CompatLevel.oldest())
    lists = pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], ends])), named.cast(pa.large_string()))
    return pl.Series(pl.from_arrow(lists))


def feedback_index(files: dict[str, pl.DataFrame], drops: pl.DataFrame, triplet_ids: pl.Series) -> pl.DataFrame:
    """Return, sorted by feedback id, the file and row that name each triplet, or the reason why none does."""

    def parts() -> "Iterator[pl.DataFrame]":
        for file, table in files.items():
            numbered = table.select("votes", place=pl.int_range(pl.len(), dtype=pl.UInt32))
            exploded = numbered.explode("votes").select(row="votes", place="place")
            yield exploded.with_columns(file=pl.lit(file), reason=pl.lit(None, dtype=pl.String))
        yield drops.select(
            "row", place=pl.lit(None, dtype=pl.UInt32), file=pl.lit(None, dtype=pl.String), reason="reason"
        )

    entries = pl.concat([part.select("row", "file", "place", "reason") for part in parts()]).sort(
        "row", "file", "place"
    )
    return entries.with_columns(feedback_id=triplet_ids.gather(entries["row"])).select(list(FEEDBACK_INDEX_SCHEMA))
