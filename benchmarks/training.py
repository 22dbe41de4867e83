"""One epoch of DPO on the same pairs: ours, TRL with its defaults, TRL tuned, and ours with one lever off at a time.

Every arm is a process of its own, so that peak memory is its own, and the arms take turns, so that a slow minute of the
machine falls on all of them. Timed are the reference's log-probabilities and the training, by the clock and in CPU
seconds, which a busy machine distorts less; loading and tokenising are not. All arms see the same pairs, in the order
of our own plan (TRL tuned in that of our padded plan, by like length).

    python -m benchmarks training pandalm     # writes benchmarks/results/training-pandalm.json

A run that was cut short is gone on with by the same command.
"""

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.__main__ import machine
from ratchet.base_model import EMBEDDED

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
RESULTS = Path(__file__).parent / "results"
FILES = {"pandalm": "pandalm-testset-v1.json", "oasst": "oasst-en-100-trees.jsonl"}
CORPORA = (*FILES, "uniform")
MAX_TOKENS, BATCH_PAIRS, LEARNING_RATE, BETA = 512, 8, 1e-4, 0.1
UNIFORM_WORDS = 64  # of prompt, chosen and rejected alike: nothing to pad, and a prompt to share
OURS = {
    "ours": {},
    "ours, prompts apart": {"packing": "separate"},
    "ours, padded": {"packing": "off"},
    "ours, PEFT's layers": {"fuse": False},
    "ours, torch's attention": {"plain_tokens": 0},
}
WITHOUT_CHECKPOINTING = {
    "gradient_checkpointing": False, "precompute_ref_log_probs": True, "model_init_kwargs": {"dtype": "bfloat16"},
}  # fmt: skip
MICRO = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": BATCH_PAIRS // 2}  # pads and holds less
TRL: dict[str, dict[str, Any]] = {
    "TRL tuned": {**WITHOUT_CHECKPOINTING, **MICRO},
    "TRL tuned, no autocast": {**WITHOUT_CHECKPOINTING, **MICRO, "bf16": False},
    "TRL tuned, whole batches": WITHOUT_CHECKPOINTING,
    "TRL defaults": {},
}
MAIN = ("ours", "TRL tuned", "TRL defaults")
ARMS = (*OURS, *TRL)


def run() -> dict[str, float]:
    """Pairs a minute of ours, TRL tuned and TRL with defaults on a few pairs of PandaLM; prints all that was found."""
    found = {}
    for corpus in CORPORA:
        arms = ARMS if corpus == "pandalm" else MAIN
        found[corpus] = summarize(list(measure(corpus, pairs=8, repeats=2, arms=arms)))
        print(corpus)
        _tell(found[corpus])
    return {arm: 60 * found["pandalm"][arm]["pairs_per_s"] for arm in MAIN}


def measure(
    corpus: str, *, pairs: int, repeats: int, arms: tuple[str, ...], layers: int | None = None, num_done: int = 0
) -> Iterator[dict[str, Any]]:
    """One finding a run, the arms in turn. With `layers` the base model keeps only so many of its first ones."""
    turns = [arm for repeat in range(repeats) for arm in arms[repeat % len(arms) :] + arms[: repeat % len(arms)]]
    if num_done == len(turns):
        return
    with tempfile.TemporaryDirectory() as aside:
        task = Path(aside) / "task.json"
        model = EMBEDDED if layers is None else _shortened(Path(aside) / "model", layers)
        task.write_text(json.dumps({"model": model, "table": _records(corpus, pairs)}))
        for arm in turns[num_done:]:
            yield {"arm": arm, **_apart(arm, task)}


def _shortened(folder: Path, layers: int) -> str:
    from ratchet.base_model import load_base
    from ratchet.config import BaseModelSource

    model, tokenizer = load_base(BaseModelSource())
    model.model.layers = model.model.layers[:layers]
    model.config.num_hidden_layers = layers
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def summarize(taken: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Of each arm the median pairs and useful tokens a second, their range, peak memory and the losses."""
    told = {}
    for arm in dict.fromkeys(run["arm"] for run in taken):
        runs = [run for run in taken if run["arm"] == arm]
        rates = sorted(run["pairs"] / run["seconds"] for run in runs)
        told[arm] = {
            "pairs_per_s": round(statistics.median(rates), 3),
            "range": [round(rates[0], 3), round(rates[-1], 3)],
            "useful_tokens_per_s": round(statistics.median(rates) * runs[0]["tokens"] / runs[0]["pairs"]),
            "cpu_s": round(statistics.median(run["cpu_s"] for run in runs), 1),
            "peak_mib": round(max(run["peak_mib"] for run in runs)),
            "losses": [round(loss, 4) for loss in runs[0]["losses"]],
        }
    return told


def _apart(arm: str, task: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.training", "--arm", arm, str(task)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    if done.returncode:
        raise RuntimeError(f"{arm}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _records(corpus: str, pairs: int) -> list[dict[str, Any]]:
    """As many pairs of the corpus, drawn with a fixed seed, as `build_datasets` makes them; whole optimiser steps."""
    from ratchet.base_model import load_tokenizer
    from ratchet.config import BaseModelSource
    from ratchet.training.tokenization import dpo_rows

    tokenizer = load_tokenizer(BaseModelSource())
    table = _uniform(tokenizer, pairs) if corpus == "uniform" else _built(corpus)
    random.Random(0).shuffle(table)
    fitting = [record for record, row in zip(table, dpo_rows(table, tokenizer), strict=True) if _fits(row)]
    return fitting[:pairs]


def _fits(row: Any) -> bool:
    return row is not None and row.length <= MAX_TOKENS


def _built(corpus: str) -> list[dict[str, Any]]:
    import polars as pl

    from ratchet.config import Config
    from ratchet.ingest.importers import import_files
    from ratchet.store import open_store
    from ratchet_pipelines.graph import STEPS
    from ratchet_pipelines.loop import run_loop

    with tempfile.TemporaryDirectory() as lake:
        store = open_store(lake)
        import_files(store, corpus, [DATA / FILES[corpus]])
        done = run_loop(Config(), store, lambda step, ran: None, STEPS[:3])
        dataset = store.local(done["build_datasets"].manifest.outputs["dataset"].uri)
        columns = ["prompt", "chosen", "rejected", "chosen_ends", "rejected_ends"]
        table = pl.read_parquet(dataset / "dpo-train.parquet", columns=columns)
    return [{**record, "weight": 1.0, "flip_probability": 0.0} for record in table.to_dicts()]


def _uniform(tokenizer: Any, pairs: int) -> list[dict[str, Any]]:
    words = [token[1:] for token in sorted(tokenizer.get_vocab()) if token[0] == "Ġ" and token[1:].isalpha()]
    draw = random.Random(1)

    def text() -> str:
        return " ".join(draw.choices(words, k=UNIFORM_WORDS))

    ends = {"chosen_ends": True, "rejected_ends": True, "weight": 1.0, "flip_probability": 0.0}
    return [
        {"prompt": json.dumps([{"role": "user", "content": text()}]), "chosen": text(), "rejected": text(), **ends}
        for _ in range(pairs)
    ]


def _child(arm: str, model: str, table: list[dict[str, Any]]) -> dict[str, Any]:
    import torch

    torch.set_num_threads(2)
    spent = Spent()
    losses = _ours(model, table, spent, **OURS[arm]) if arm in OURS else _trl(model, table, spent, TRL[arm])
    return {
        "seconds": round(spent.seconds, 2),
        "cpu_s": round(spent.cpu_s, 2),
        "losses": losses,
        "pairs": len(table),
        "tokens": sum(row.num_distinct for row in _rows(table)),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


class Spent:
    """Time spent inside `with` blocks: by the clock, and by all threads of this process."""

    def __init__(self) -> None:
        self.seconds = self.cpu_s = 0.0

    def __enter__(self) -> None:
        self.started = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self.started[0]
        self.cpu_s += time.process_time() - self.started[1]


def _rows(table: list[dict[str, Any]]) -> list[Any]:
    from ratchet.base_model import load_tokenizer
    from ratchet.config import BaseModelSource
    from ratchet.training.tokenization import dpo_rows

    return dpo_rows(table, load_tokenizer(BaseModelSource()))


def _config(model: str, packing: str) -> Any:
    from ratchet.config import Config

    phase = {"epochs": 1, "batch_rows": BATCH_PAIRS, "learning_rate": LEARNING_RATE, "warmup_share": 0.0}
    section = {"dpo": phase, "beta": BETA, "max_tokens": MAX_TOKENS, "packing": packing, "checkpoint_steps": 1000}
    return Config.model_validate({"base_model": {"model": model}, "train_adapter": section})


def _ours(
    model_name: str,
    table: list[dict[str, Any]],
    spent: Spent,
    *,
    packing: str = "shared",
    fuse: bool = True,
    plain_tokens: int | None = None,
) -> list[float]:
    from ratchet.store import open_store
    from ratchet.training import attention, batches, fused_lora, phases, train_adapter
    from ratchet.training.checkpoints import CheckpointFolder
    from ratchet.training.log_probs import with_reference
    from ratchet.training.objectives import dpo_objective
    from ratchet.training.trainer import PhaseRun, train_phase

    config = _config(model_name, packing)
    if not fuse:
        fused_lora.fuse = lambda model: None
    if plain_tokens is not None:
        attention.PLAIN_TOKENS = plain_tokens
    model, tokenizer = train_adapter.fresh_adapter(config)
    layout, rows = phases.layout_of(config.train_adapter, tokenizer), _rows(table)
    with tempfile.TemporaryDirectory() as aside, spent:
        store = open_store(aside)
        steps = batches.plan(rows, batch_rows=BATCH_PAIRS, epochs=1, seed=0, layout=layout)
        rows = with_reference(model, rows, together=batches.first_passes(steps), layout=layout, store=store, origin={})
        run = PhaseRun(
            rows=rows,
            steps=steps,
            layout=layout,
            objective=dpo_objective("sigmoid", BETA),
            phase=config.train_adapter.dpo,
            place=CheckpointFolder(store, "dpo"),
            checkpoint_steps=1000,
            device="cpu",
        )
        curve = train_phase(model, run)
    return [entry["loss"] for entry in curve]


def _trl(model: str, table: list[dict[str, Any]], spent: Spent, settings: dict[str, Any]) -> list[float]:
    import torch
    from peft import LoraConfig
    from trl import DPOConfig, DPOTrainer

    from datasets import Dataset
    from ratchet.base_model import base_folder, load_tokenizer
    from ratchet.config import BaseModelSource
    from ratchet.training.batches import Layout, plan

    tokenizer, rows = load_tokenizer(BaseModelSource()), _rows(table)
    layout = Layout(packing="off" if settings else "shared", pass_tokens=10**9, pad_id=0)
    steps = plan(rows, batch_rows=BATCH_PAIRS, epochs=1, seed=0, layout=layout)
    order = [index for step in steps for chosen in step for index in chosen]
    with tempfile.TemporaryDirectory() as aside:
        arguments = DPOConfig(
            output_dir=aside,
            num_train_epochs=1,
            beta=BETA,
            seed=0,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="cosine",
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
            **{"per_device_train_batch_size": BATCH_PAIRS, **settings},
        )
        precompute = DPOTrainer._precompute_ref_logps

        def timed(*given: Any, **named: Any) -> Any:
            with spent:
                return precompute(*given, **named)

        DPOTrainer._precompute_ref_logps = timed
        torch.manual_seed(0)
        trainer = DPOTrainer(
            str(base_folder(BaseModelSource(model=model))),
            args=arguments,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([_as_trl(table[index], tokenizer) for index in order]),
            peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        )
        with spent:
            trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def _as_trl(record: dict[str, Any], tokenizer: Any) -> dict[str, str]:
    prompt = tokenizer.apply_chat_template(json.loads(record["prompt"]), tokenize=False, add_generation_prompt=True)
    return {"prompt": prompt, "chosen": record["chosen"], "rejected": record["rejected"]}


def _tell(told: dict[str, dict[str, Any]]) -> None:
    ours = told["ours"]
    for arm, found in told.items():
        print(
            f"  {arm:<26} {found['pairs_per_s']:7.3f} pairs/s {found['range']}  {found['useful_tokens_per_s']:6} "
            f"useful tokens/s  {found['peak_mib']:6} MiB  ours is {ours['pairs_per_s'] / found['pairs_per_s']:.2f} "
            f"times this ({found['cpu_s'] / ours['cpu_s']:.2f} in CPU seconds); losses {found['losses']}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help=", ".join(CORPORA))
    parser.add_argument("--pairs", type=int, default=24)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--layers", type=int, help="of the base model's 30; a shorter model where time is short")
    parser.add_argument("--arms", nargs="+", default=MAIN, choices=ARMS, metavar="ARM", help="; ".join(ARMS))
    parser.add_argument("--name", help="of the result's file; training-CORPUS without it")
    parser.add_argument("--arm", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.arm:
        print(json.dumps(_child(given.arm, **json.loads(Path(given.corpus).read_text()))))
        return
    command = " ".join(["python -m benchmarks training", *(arguments or sys.argv[1:])])
    record = {"command": command, "machine": machine_name(), "packages": packages(), "layers": given.layers or "all"}
    path = RESULTS / f"{given.name or f'training-{given.corpus}'}.json"
    taken = _taken(path, record)
    RESULTS.mkdir(exist_ok=True)
    sizes = {"pairs": given.pairs, "repeats": given.repeats, "layers": given.layers}
    for found in measure(given.corpus, arms=tuple(given.arms), num_done=len(taken), **sizes):
        taken.append(found)
        print(f"{found['arm']}: {found['seconds']:.1f} s, {found['cpu_s']:.1f} CPU s", file=sys.stderr, flush=True)
        path.write_text(json.dumps({**record, "arms": summarize(taken), "runs": taken}, indent=1) + "\n")
    _tell(summarize(taken))


def _taken(path: Path, record: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier run of the same command found."""
    before = json.loads(path.read_text()) if path.exists() else {}
    return before["runs"] if record.items() <= before.items() else []


def packages() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "trl", "peft", "accelerate")}


def machine_name() -> str:
    return machine() + (", AMX" if "amx_bf16" in Path("/proc/cpuinfo").read_text() else "")


if __name__ == "__main__":
    main()
