"""Step `build_datasets`: SFT, DPO and KTO rows from validated triplets, split without leaks, named by digest."""

import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.config import Config
from ratchet.datasets import assignments
from ratchet.digest import digest_json, digest_tree
from ratchet.lake.validated import scan_valid, valid_files
from ratchet.manifest import Artifact, Flow, Made
from ratchet.mapped import mapped
from ratchet.parquet import write_parquet
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

    from ratchet.datasets.keys import Keyed
    from ratchet.datasets.pairs import Rows
    from ratchet.datasets.split import Split

PLACES = "places.parquet"
DAY_S = 86_400
RETENTION = ("retention_until", "other_retention_until")


def run(config: Config, inputs: Inputs, store: Store) -> Made:
    from ratchet.datasets.card import describe, write_card
    from ratchet.datasets.files import write_files
    from ratchet.datasets.keys import keyed
    from ratchet.datasets.rows import divide, places
    from ratchet.datasets.signals import judge

    valid = inputs["validate_triplets"].outputs["valid"]
    settings = config.build_datasets
    expired_through = _expired_through(inputs, store)
    triplets = keyed(_read(store, valid.uri))
    earlier = _assignments(config, inputs, store)
    judged = judge(triplets, settings, expired_through)
    triplets = replace(triplets, keys=triplets.keys.select("row"))  # the rest is judged, and was much
    rows, sides = decide(judged, triplets, config, earlier.read(store))
    del judged
    earlier.freeze(store, sides.conversations)
    files = divide(rows, sides, with_recent=settings.recent_days > 0)
    dropped = rows.drops
    del rows  # the tables of `files` hold them anew
    num_in, drops = len(triplets.keys), dict(sorted(Counter(dropped["reason"].to_list()).items()))
    flow = Flow(rows_in=num_in, rows_out=num_in - len(dropped), drops=drops)
    card = {
        "input": {
            "triplets": valid.digest,
            "rows": num_in,
            "expired_through": expired_through,
            "split": earlier.digest,
        },
        "settings": {"seed": config.seed, **settings.model_dump(mode="json")},
        "triplets": flow.model_dump(),
        "split": describe_split(sides),
    }
    with tempfile.TemporaryDirectory() as aside:
        written = write_files(Path(aside), files, triplets, config)
        card["files"] = {name: describe(name, table, triplets, written[name]) for name, table in files.items()}
        write_parquet(places(files, dropped, triplets.triplet_ids), Path(aside) / PLACES, sorted_by="feedback_id")
        write_card(Path(aside), card, files, triplets)
        digest = digest_tree(Path(aside))
        store.put_tree(Path(aside), f"datasets/{digest}")
    sizes = {name: len(table) for name, table in written.items()}
    return Made(
        outputs={"dataset": Artifact(uri=f"datasets/{digest}", digest=digest, rows=sum(sizes.values()))},
        flows={"triplets": flow},
        facts={"sizes": sizes, **describe_split(sides)},
    )


def decide(
    judged: "pl.DataFrame", triplets: "Keyed", config: Config, frozen: "pl.DataFrame | None"
) -> tuple["Rows", "Split"]:
    """The rows of the dataset and their sides, from what `signals.judge` says of the triplets. Pure."""
    import polars as pl

    from ratchet.datasets.dedup import prompt_clusters, without_near_duplicates
    from ratchet.datasets.pairs import make_rows
    from ratchet.datasets.prompts import prompt_texts
    from ratchet.datasets.shingles import stable_hash
    from ratchet.datasets.split import split

    settings = config.build_datasets
    rows = make_rows(judged, settings, triplets.answers.str.len_chars())
    prompts = pl.concat([table.select("prompt") for table in (rows.sft, rows.dpo, rows.kto)]).unique().sort("prompt")
    texts = prompt_texts(triplets.prompts.gather(prompts["prompt"]))
    clusters = prompts.with_columns(cluster=pl.Series(prompt_clusters(texts, settings.near_duplicate)))
    rows = without_near_duplicates(_clustered(rows, clusters), triplets.answers, judged, settings.near_duplicate)
    named = judged.select("row", "prompt", "created_at").join(rows.drops, on="row", how="anti")
    named = named.join(clusters, on="prompt", maintain_order="left")
    conversation = stable_hash(triplets.conversations.gather(named["row"]))
    seen = named.select("cluster", conversation=pl.Series(conversation), first_at="created_at")
    sides = split(
        seen,
        eval_share=settings.eval_share,
        seed=config.seed,
        hub_conversations=settings.hub_conversations,
        frozen=frozen,
        recent_since=_recent_since(judged, settings.recent_days),
    )
    return rows, sides


def _clustered(rows: "Rows", clusters: "pl.DataFrame") -> "Rows":
    from ratchet.datasets.pairs import Rows

    sft, dpo, kto = (table.join(clusters, on="prompt", how="left") for table in (rows.sft, rows.dpo, rows.kto))
    return Rows(sft, dpo, kto, rows.drops)


def _recent_since(judged: "pl.DataFrame", days: float) -> float | None:
    newest = judged["created_at"].max()
    return float(newest) - days * DAY_S if days > 0 and isinstance(newest, float) else None


def _read(store: Store, uri: str) -> "pl.DataFrame":
    import polars as pl

    from ratchet.datasets.keys import COLUMNS

    files = valid_files(store, uri)
    return mapped(
        pl.scan_parquet(file).select(name for name in pl.read_parquet_schema(file) if name in COLUMNS) for file in files
    )


def _expired_through(inputs: Inputs, store: Store) -> float | None:
    """The latest time, by now in the past, until which any triplet was to be kept; None if none has expired.

    The key depends on it, and so only on the days on which something expires.
    """
    import polars as pl

    found = scan_valid(store, inputs["validate_triplets"].outputs["valid"].uri)
    ends = [pl.col(name) for name in RETENTION if name in found.collect_schema().names()]
    today = time.time() // DAY_S * DAY_S
    past = found.select(pl.when(end < today).then(end).max() for end in ends)
    latest: float | None = past.select(pl.max_horizontal(pl.all())).collect().item() if ends else None
    return latest


def _assignments(config: Config, inputs: Inputs, store: Store) -> assignments.Assignments:
    settings = config.build_datasets
    series = digest_json({"seed": config.seed, "eval_share": settings.eval_share})[:16]
    work = [inputs["validate_triplets"].outputs["valid"].digest, config.seed, settings.model_dump(mode="json")]
    return assignments.before(store, series, digest_json([*work, _expired_through(inputs, store)]))


def _sources(config: Config, inputs: Inputs, store: Store) -> dict[str, str]:
    return {
        "expired_through": str(_expired_through(inputs, store)),
        "split": _assignments(config, inputs, store).digest,
    }


def describe_split(sides: "Split") -> dict[str, Any]:
    note = "" if sides.num_eval_groups else "nothing is held out: no group fell to eval, or all of them did"
    return {
        "groups": sides.num_groups,
        "eval_groups": sides.num_eval_groups,
        "recent_groups": sides.num_recent_groups,
        "hubs": sides.num_hubs,
        "largest_group": sides.largest_group,
        "note": note,
    }


STEP = Step(name="build_datasets", run=run, inputs=("validate_triplets",), version=4, reads=("seed",), sources=_sources)
