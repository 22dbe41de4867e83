"""Rows to train on, published as `build_datasets` does it, and the step run on them."""

import json
import sys
from pathlib import Path

import polars as pl

from ratchet.config import Config
from ratchet.digest import digest_tree
from ratchet.manifest import Artifact, Manifest
from ratchet.step import run_step
from ratchet.store import Store, open_store
from ratchet.training.train_adapter import STEP

QUESTIONS = [
    "What is the capital of France?",
    "Tell me about bread.",
    "Why is the sky blue?",
    "How do bees make honey?",
]
ENDS = {"chosen_ends": True, "rejected_ends": True}
SFT = [
    {"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": f"Because {q} " * (n % 3 + 1)}]}
    for n, q in enumerate(QUESTIONS * 3)
]
KTO = [
    {"prompt": [{"role": "user", "content": q}], "completion": f"Bread {q}", "label": n % 2 == 0}
    for n, q in enumerate(QUESTIONS * 2)
]
DPO = [
    {"prompt": [{"role": "user", "content": q}], "chosen": "Bread is made of flour.", "rejected": "No " * (n % 4 + 1)}
    for n, q in enumerate(QUESTIONS * 3)
]
STEPS = [1, 2, 3, 4, 5, 6]  # 12 rows, 4 a step, twice


def publish(store: Store, aside: Path, sft: list[dict], dpo: list[dict]) -> Manifest:
    """A dataset as `build_datasets` leaves it."""
    aside.mkdir()
    origins = [{"feedback_ids": ["f"], "group": f"g{n}"} for n in range(len(sft) + len(dpo))]
    sft = [
        {"weight": 1.0 + n % 2, **row, "messages": json.dumps(row["messages"]), **origins[n]}
        for n, row in enumerate(sft)
    ]
    dpo = [
        {"weight": 1.0, "flip_probability": 0.1, **ENDS, **row, "prompt": json.dumps(row["prompt"]), **origins[n]}
        for n, row in enumerate(dpo)
    ]
    kto = [{**row, "prompt": json.dumps(row["prompt"]), "weight": 1.0} for row in KTO]
    sft_columns = {"messages": pl.String, "weight": pl.Float64}
    texts = dict.fromkeys(("prompt", "chosen", "rejected"), pl.String)
    answers_end = dict.fromkeys(ENDS, pl.Boolean)
    dpo_columns = {**texts, "weight": pl.Float64, "flip_probability": pl.Float64, **answers_end}
    ends = {"feedback_ids": pl.List(pl.String), "group": pl.String}
    pl.DataFrame(sft, schema={**sft_columns, **ends}).write_parquet(aside / "sft-train.parquet")
    pl.DataFrame(dpo, schema={**dpo_columns, **ends}).write_parquet(aside / "dpo-train.parquet")
    pl.DataFrame(kto).write_parquet(aside / "kto-train.parquet")
    digest = digest_tree(aside)
    store.put_tree(aside, f"datasets/{digest}")
    return Manifest(
        step="build_datasets",
        key="k",
        inputs={},
        code_version="0",
        created_at=0,
        seconds=0,
        outputs={"dataset": Artifact(uri=f"datasets/{digest}", digest=digest)},
    )


def train(config: Config, folder: Path, sft: list[dict] = SFT, dpo: list[dict] = DPO) -> tuple[Store, Manifest]:
    folder.mkdir()
    store = open_store(folder / "lake")
    dataset = publish(store, folder / "dataset", sft, dpo)
    return store, run_step(STEP, config, {"build_datasets": dataset}, store).manifest


def curve(manifest: Manifest) -> list[tuple[str, int, float]]:
    return [(entry["phase"], entry["step"], entry["loss"]) for entry in manifest.facts["history"]]


def weights(store: Store, manifest: Manifest) -> dict:
    from safetensors.torch import load_file

    return load_file(store.local(manifest.outputs["adapter"].uri) / "adapter_model.safetensors")


if __name__ == "__main__":  # the process that the tests kill
    folder = Path(sys.argv[1])
    run_step(
        STEP,
        Config.model_validate_json((folder / "config.json").read_text()),
        {"build_datasets": Manifest.model_validate_json((folder / "dataset.json").read_text())},
        open_store(sys.argv[2]),
    )
