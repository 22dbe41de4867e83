"""Step `build_datasets`: SFT, DPO and KTO rows from validated triplets, split without leaks, named by digest."""

import tempfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.clock import DAY_S
from ratchet.compute.memory_map import memory_mapped_frame
from ratchet.compute.parquet import write_parquet
from ratchet.config import Config
from ratchet.datasets import frozen_split
from ratchet.digest import digest_json
from ratchet.lake.valid_triplets import scan_valid, valid_files
from ratchet.manifest import FEEDBACK_INDEX, Artifact, Flow, StepOutput
from ratchet.needs import HOUR_S, Needs
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

    from ratchet.datasets.interning import Interned
    from ratchet.datasets.split import Split
    from ratchet.datasets.training_rows import Rows

RETENTION = ("retention_until", "other_retention_until")


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    earlier, expired_through = _assignments(config, inputs, store), _expired_through(inputs, store)
    triplets, files, dropped, sides = _decide_all(config, inputs, store, earlier, expired_through)
    earlier.freeze(store, sides.conversations)
    num_in, drops = len(triplets.keys), dict(sorted(Counter(dropped["reason"].to_list()).items()))
    flow = Flow(rows_in=num_in, rows_out=num_in - len(dropped), drops=drops)
    card = {
        "input": {
            "triplets": inputs["validate_triplets"].outputs["valid"].digest,
            "rows": flow.rows_in,
            "expired_through": expired_through,
            "split": earlier.digest,
        },
        "settings": {"seed": config.seed, **config.build_datasets.model_dump(mode="json")},
        "triplets": flow.model_dump(),
        "split": describe_split(sides),
    }
    dataset, sizes = _publish(store, config, card, triplets, files, dropped)
    return StepOutput(
        outputs={"dataset": dataset},
        flows={"triplets": flow},
        facts={"sizes": sizes, **describe_split(sides)},
    )


def _decide_all(
    config: Config, inputs: Inputs, store: Store, earlier: frozen_split.Assignments, expired_through: float | None
) -> tuple["Interned", dict[str, "pl.DataFrame"], "pl.DataFrame", "Split"]:
    """Return the triplets, the divided tables on keys, the dropped triplets with reasons, and the split.

    The columns that eligibility is decided by, and the undivided rows, are freed here: they are large.
    """
    from ratchet.datasets.eligibility import assess_eligibility
    from ratchet.datasets.interning import intern
    from ratchet.datasets.materialize import divide

    triplets = intern(_read(store, inputs["validate_triplets"].outputs["valid"].uri))
    judged = assess_eligibility(triplets, config.build_datasets, expired_through)
    triplets = replace(triplets, keys=triplets.keys.select("row"))
    rows, sides = decide(judged, triplets, config, earlier.read(store))
    return triplets, divide(rows, sides, with_recent=config.build_datasets.recent_days > 0), rows.drops, sides


def _publish(
    store: Store,
    config: Config,
    card: dict[str, Any],
    triplets: "Interned",
    files: dict[str, "pl.DataFrame"],
    dropped: "pl.DataFrame",
) -> tuple[Artifact, dict[str, int]]:
    """Write and publish the dataset; also return the number of rows in each file."""
    from ratchet.datasets.card import describe, write_card
    from ratchet.datasets.materialize import feedback_index, write_files

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        written = write_files(folder, files, triplets, config)
        described = {name: describe(name, table, triplets, written[name]) for name, table in files.items()}
        write_parquet(
            feedback_index(files, dropped, triplets.triplet_ids), folder / FEEDBACK_INDEX, sorted_by="feedback_id"
        )
        write_card(folder, {**card, "files": described}, files, triplets)
        tree = store.publish_tree(folder, "datasets")
    sizes = {name: len(table) for name, table in written.items()}
    return Artifact(uri=tree.uri, digest=tree.digest, rows=sum(sizes.values())), sizes


def decide(
    judged: "pl.DataFrame", triplets: "Interned", config: Config, frozen: "pl.DataFrame | None"
) -> tuple["Rows", "Split"]:
    """Make the rows of the dataset and split them, from triplets as `assess_eligibility` returns them. Pure."""
    import polars as pl

    from ratchet.datasets.dedup import prompt_clusters, without_near_duplicates
    from ratchet.datasets.prompts import prompt_texts
    from ratchet.datasets.shingles import stable_hash
    from ratchet.datasets.split import split
    from ratchet.datasets.training_rows import Rows, make_rows

    settings = config.build_datasets
    rows = make_rows(judged, settings, triplets.answers.str.len_chars())
    prompts = pl.concat([table.select("prompt") for table in (rows.sft, rows.dpo, rows.kto)]).unique().sort("prompt")
    texts = prompt_texts(triplets.prompts.gather(prompts["prompt"]))
    clusters = prompts.with_columns(cluster=pl.Series(prompt_clusters(texts, settings.near_duplicate)))
    sft, dpo, kto = (table.join(clusters, on="prompt", how="left") for table in (rows.sft, rows.dpo, rows.kto))
    rows = Rows(sft, dpo, kto, rows.drops)
    rows = without_near_duplicates(rows, triplets.answers, judged, settings.near_duplicate)
    named = judged.select("row", "prompt", "created_at").join(rows.drops, on="row", how="anti")
    named = named.join(clusters, on="prompt", maintain_order="left")
    conversation = stable_hash(triplets.conversations.gather(named["row"]))
    seen = named.select("cluster", conversation=pl.Series(conversation), first_at="created_at")
    newest, days = judged["created_at"].max(), settings.recent_days
    sides = split(
        seen,
        eval_share=settings.eval_share,
        seed=config.seed,
        hub_conversations=settings.hub_conversations,
        frozen=frozen,
        recent_since=float(newest) - days * DAY_S if days > 0 and isinstance(newest, float) else None,
    )
    return rows, sides


def _read(store: Store, uri: str) -> "pl.DataFrame":
    import polars as pl

    from ratchet.datasets.interning import COLUMNS

    files = valid_files(store, uri)
    return memory_mapped_frame(
        pl.scan_parquet(file).select(name for name in pl.read_parquet_schema(file) if name in COLUMNS) for file in files
    )


def _expired_through(inputs: Inputs, store: Store) -> float | None:
    """Return the latest retention end (Unix seconds) before today; None if no triplet has expired.

    The step's key depends on it, so the key changes only on days on which something expires.
    """
    import polars as pl

    triplets = scan_valid(store, inputs["validate_triplets"].outputs["valid"].uri)
    ends = [pl.col(name) for name in RETENTION if name in triplets.collect_schema().names()]
    today = time.time() // DAY_S * DAY_S
    past = triplets.select(pl.when(end < today).then(end).max() for end in ends)
    latest: float | None = past.select(pl.max_horizontal(pl.all())).collect().item() if ends else None
    return latest


def _assignments(config: Config, inputs: Inputs, store: Store) -> frozen_split.Assignments:
    settings = config.build_datasets
    series = digest_json({"seed": config.seed, "eval_share": settings.eval_share})[:16]
    work = [inputs["validate_triplets"].outputs["valid"].digest, config.seed, settings.model_dump(mode="json")]
    return frozen_split.before(store, series, digest_json([*work, _expired_through(inputs, store)]))


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


STEP = Step(
    name="build_datasets",
    run=run,
    inputs=("validate_triplets",),
    version=8,
    reads=("seed",),
    sources=_sources,
    needs=Needs(cpu="4", memory="16Gi", ephemeral_storage="40Gi", timeout_s=4 * HOUR_S),
)
