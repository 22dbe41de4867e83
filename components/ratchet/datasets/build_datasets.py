"""Step `build_datasets`: SFT, DPO and KTO rows from validated triplets, split without leaks, named by digest."""

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.config import Config
from ratchet.digest import digest_tree
from ratchet.manifest import Artifact, Flow, Made
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    import polars as pl

    from ratchet.datasets.pairs import Rows
    from ratchet.datasets.split import Split

COLUMNS = [
    "triplet_id", "interaction_id", "conversation_id", "subject_id", "messages", "response", "kind", "value_num",
    "value_text", "is_tie", "other_response", "finish_reason", "other_finish_reason", "created_at",
]  # fmt: skip
ROW_GROUP_ROWS = 100_000  # fixed, since it shapes the bytes and so the digest


def run(config: Config, inputs: Inputs, store: Store) -> Made:
    import polars as pl

    from ratchet.datasets.pairs import make_rows
    from ratchet.datasets.signals import with_prompts
    from ratchet.datasets.split import split

    valid = inputs["validate_triplets"].outputs["valid"]
    settings = config.build_datasets
    triplets = with_prompts(pl.read_parquet(store.local(valid.uri), columns=COLUMNS))
    rows = make_rows(triplets, settings)
    sides = split(
        triplets["conversation_id"].to_list(),
        triplets["prompt"].to_list(),
        near_duplicate=settings.near_duplicate,
        eval_share=settings.eval_share,
        seed=config.seed,
    )
    files = divide(rows, sides)
    drops = dict(sorted(Counter(rows.drops["reason"]).items()))
    flow = Flow(rows_in=len(triplets), rows_out=len(triplets) - len(rows.drops), drops=drops)
    card = {
        "input": {"triplets": valid.digest, "rows": len(triplets)},
        "settings": {"seed": config.seed, **settings.model_dump(mode="json")},
        "triplets": flow.model_dump(),
        "split": describe_split(sides),
        "files": {name: describe(frame) for name, frame in files.items()},
    }
    digest = publish(store, files, card)
    sizes = {name: len(frame) for name, frame in files.items()}
    return Made(
        outputs={"dataset": Artifact(uri=f"datasets/{digest}", digest=digest, rows=sum(sizes.values()))},
        flows={"triplets": flow},
        facts={"sizes": sizes, **describe_split(sides)},
    )


def divide(rows: "Rows", sides: "Split") -> dict[str, "pl.DataFrame"]:
    """The six tables, `{sft,dpo,kto}-{train,eval}`, each in a total order."""
    import polars as pl

    from ratchet.datasets.pairs import DPO, KTO, SFT

    files: dict[str, pl.DataFrame] = {}
    for name, frame, columns in (("sft", rows.sft, SFT), ("dpo", rows.dpo, DPO), ("kto", rows.kto, KTO)):
        group = pl.col("prompt").replace_strict(sides.group_of, return_dtype=pl.String)
        placed = frame.with_columns(group=group).select(*columns, "group").sort(list(columns)[:3])
        is_eval = pl.col("group").is_in(sides.eval_groups)
        files |= {f"{name}-train": placed.filter(~is_eval), f"{name}-eval": placed.filter(is_eval)}
    return files


def describe(frame: "pl.DataFrame") -> dict[str, Any]:
    """Rows, total weight, effective sample size (Kish: the square of the sum over the sum of squares), lengths."""
    import polars as pl

    texts = [name for name in ("messages", "prompt", "completion", "chosen", "rejected") if name in frame.columns]
    total, squares = frame.select(pl.col("weight").sum(), squares=(pl.col("weight") ** 2).sum()).row(0)
    return {
        "rows": len(frame),
        "groups": frame["group"].n_unique(),
        "weight": round(total, 3),
        "effective_rows": round(total**2 / squares, 1) if squares else 0.0,
        "median_chars": {name: frame.select(pl.col(name).str.len_chars().median()).item() for name in texts},
    }


def describe_split(sides: "Split") -> dict[str, Any]:
    note = "" if sides.eval_groups else "nothing is held out: no group fell to eval, or all of them did"
    return {
        "groups": sides.num_groups,
        "eval_groups": len(sides.eval_groups),
        "largest_group": sides.largest_group,
        "note": note,
    }


def publish(store: Store, files: dict[str, "pl.DataFrame"], card: dict[str, Any]) -> str:
    """Write the folder aside and put it in place under its digest, which is returned."""
    with tempfile.TemporaryDirectory() as aside:
        for name, frame in files.items():
            frame.write_parquet(
                Path(aside) / f"{name}.parquet", compression="zstd", compression_level=3, row_group_size=ROW_GROUP_ROWS
            )
        (Path(aside) / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
        digest = digest_tree(Path(aside))
        store.put_tree(Path(aside), f"datasets/{digest}")
    return digest


STEP = Step(name="build_datasets", run=run, inputs=("validate_triplets",), reads=("seed",))
