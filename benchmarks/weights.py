"""Do weights help? DPO on PandaLM with the annotators' agreement as weight and flip probability, and without.

Five seeds, each with its own draw of training pairs, its own adapter init and order; both arms of a seed see the same
pairs, half of them disputed (of all of PandaLM's an eighth is, too few to see an effect). Judged on held-out pairs on
which all annotators agree, by the margin over the base model that training made.

    python -m benchmarks weights     # writes benchmarks/results/weights-pandalm.json
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import torch
from scipy import stats

from benchmarks.training import machine_name, packages
from ratchet.base_model import load_tokenizer
from ratchet.config import Config
from ratchet.ingest.importers import import_files
from ratchet.store import open_store
from ratchet.training.batches import first_passes, passes, plan
from ratchet.training.checkpoints import CheckpointFolder
from ratchet.training.log_probs import reference_table, with_reference
from ratchet.training.losses import normalized
from ratchet.training.objectives import dpo_objective
from ratchet.training.phases import layout_of
from ratchet.training.tokenization import dpo_rows, select
from ratchet.training.train_adapter import fresh_adapter
from ratchet.training.trainer import PhaseRun, train_phase
from ratchet_pipelines.graph import STEPS
from ratchet_pipelines.loop import run_loop

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "pandalm-testset-v1.json"
RESULT = Path(__file__).parent / "results" / "weights-pandalm.json"
SEEDS = range(5)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train-pairs", type=int, default=64, help="half of them disputed")
    parser.add_argument("--held-out-pairs", type=int, default=100)
    given = parser.parse_args(arguments)
    torch.set_num_threads(_config(0).train_adapter.threads)
    train, held_out = _read(given.held_out_pairs)
    size = {"train_pairs": given.train_pairs, "held_out_unanimous_pairs": len(held_out)}
    found = _finished(size)
    before = None
    for seed in SEEDS[len(found) :]:
        before = _base(held_out) if before is None else before
        drawn = _draw(train, given.train_pairs, random.Random(seed))
        plain = [replace(row, weight=1.0, flip_probability=0.0) for row in drawn]
        with tempfile.TemporaryDirectory() as lake:  # the arms share the reference
            arms = {
                name: _score(rows, held_out, before, seed, CheckpointFolder(open_store(lake), name))
                for name, rows in (("weighted", drawn), ("plain", plain))
            }
        found.append({"seed": seed, **arms})
        print(json.dumps(found[-1]), flush=True)
        _write({**size, "seeds": found})  # after every seed, so that a run cut short goes on from there


def _draw(train: list[Any], num_pairs: int, draw: random.Random) -> list[Any]:
    """So many training pairs, half of them disputed, in random order."""
    surest = min(row.flip_probability for row in train)
    disputed = [row for row in train if row.flip_probability > surest]
    unanimous = [row for row in train if row.flip_probability == surest]
    rows = draw.sample(disputed, num_pairs // 2) + draw.sample(unanimous, num_pairs - num_pairs // 2)
    draw.shuffle(rows)
    return rows


def _finished(size: dict[str, int]) -> list[dict[str, Any]]:
    record = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    return record["seeds"] if size.items() <= record.items() else []


def _write(record: dict[str, Any]) -> None:
    command = f"python -m benchmarks weights --train-pairs {record['train_pairs']}"
    command += f" --held-out-pairs {record['held_out_unanimous_pairs']}"
    machine = {"command": command, "machine": machine_name(), "packages": packages()}
    told = {name: _difference(record["seeds"], name) for name in ("accuracy", "margin")}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**machine, **record, "weighted_minus_plain": told}, indent=1) + "\n")


def _difference(found: list[dict[str, Any]], name: str) -> dict[str, Any]:
    """Weighted minus plain: mean over seeds, and Student's 95 percent interval of that mean."""
    gaps = [one["weighted"][name] - one["plain"][name] for one in found]
    if len(gaps) < 2:
        return {"mean": gaps[0]}
    low, high = stats.t.interval(0.95, len(gaps) - 1, statistics.mean(gaps), stats.sem(gaps))
    return {"mean": round(statistics.mean(gaps), 4), "interval": [round(low, 4), round(high, 4)]}


def _config(seed: int) -> Config:
    phase = {"epochs": 1, "learning_rate": 1e-4}
    return Config.model_validate({"seed": seed, "train_adapter": {"dpo": phase, "max_tokens": 320}})


def _read(num_held_out: int) -> tuple[list[Any], list[Any]]:
    """Training pairs with their weights, and held-out pairs of the highest agreement."""
    config = _config(0)
    tokenizer = load_tokenizer(config.base_model)
    with tempfile.TemporaryDirectory() as lake:
        store = open_store(lake)
        import_files(store, "pandalm", [DATA])
        done = run_loop(config, store, lambda step, ran: None, STEPS[:3])
        folder = store.local(done["build_datasets"].manifest.outputs["dataset"].uri)
        sides = []
        for side in ("train", "eval"):
            table = pl.read_parquet(folder / f"dpo-{side}.parquet").iter_rows(named=True)
            sides.append(select(dpo_rows(table, tokenizer), max_tokens=320, max_rows=None).rows)
    train, held_out = sides
    surest = min(row.flip_probability for row in held_out)
    return train, [row for row in held_out if row.flip_probability == surest][:num_held_out]


def _base(held_out: list[Any]) -> Any:
    """What the base model gives the held-out answers: an adapter that is still zero changes nothing."""
    model, tokenizer = fresh_adapter(_config(0))
    layout = layout_of(_config(0).train_adapter, tokenizer)
    return reference_table(model, held_out, passes(held_out, layout), layout)


def _score(rows: list[Any], held_out: list[Any], before: Any, seed: int, place: CheckpointFolder) -> dict[str, float]:
    config = _config(seed)
    model, tokenizer = fresh_adapter(config)
    layout = layout_of(config.train_adapter, tokenizer)
    scaled = normalized([row.weight for row in rows])
    rows = [replace(row, weight=weight) for row, weight in zip(rows, scaled, strict=True)]
    phase = config.train_adapter.dpo
    steps = plan(rows, batch_rows=phase.batch_rows, epochs=phase.epochs, seed=seed, layout=layout)
    rows = with_reference(model, rows, together=first_passes(steps), layout=layout, store=place.store, origin={})
    run = PhaseRun(
        rows=rows,
        steps=steps,
        layout=layout,
        objective=dpo_objective("sigmoid", 0.1),
        phase=phase,
        place=place,
        seed=seed,
        checkpoint_steps=10_000,
        device="cpu",
    )
    train_phase(model, run)
    gains = reference_table(model, held_out, passes(held_out, layout), layout) - before
    margins = gains[:, 0] - gains[:, 1]
    return {"accuracy": round((margins > 0).float().mean().item(), 4), "margin": round(margins.mean().item(), 4)}


if __name__ == "__main__":
    main()
