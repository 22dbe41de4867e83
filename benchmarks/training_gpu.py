"""DPO on one GPU at the shapes of Llama 3.2 1B and 3.1 8B, random weights: pairs/s, useful tokens/s, MFU, peak memory.

Weights do not change the speed, so none are downloaded; lengths are PandaLM's. MFU counts 4N floating-point operations
a useful token (LoRA's forward and activation-gradient passes; N without embeddings), each prompt once, attention apart.
Timed are training passes, and apart from them as many passes of the reference; compiling falls into the warm-up.

    python -m benchmarks training_gpu              # writes benchmarks/results/training-gpu.json; says so without a GPU
    python -m benchmarks training_gpu --rehearse   # the same code at a tiny shape on a CPU; writes nothing
"""

import argparse
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from ratchet.config import Config, Packing
from ratchet.training.attention import FLEX_TOKENS, attend_by_row
from ratchet.training.batches import Layout, PackedBatch, collate, passes
from ratchet.training.cost_estimate import memory_mib
from ratchet.training.fused_lora import fuse
from ratchet.training.log_probs import completion_log_probs, to_device
from ratchet.training.objectives import dpo_objective
from ratchet.training.tokenization import TokenizedRow

SHAPES: dict[str, dict[str, int]] = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
COMMON = {"num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192}
TINY = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 8}
PASS_TOKENS = {"1B": 8192, "8B": 4096, "tiny": 1024}  # what fits into 80 GB without checkpointing
PACKINGS: tuple[Packing, ...] = ("shared", "separate", "off")
NUM_PAIRS, WARM_UP_PASSES, TIMED_PASSES, REPEATS = 4096, 20, 100, 3
PEAK_FLOPS = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12}  # dense bfloat16, from the makers' data sheets
GOAL_MFU = 0.4
OBJECTIVE = dpo_objective("sigmoid", 0.1)
RESULT = Path(__file__).parent / "results" / "training-gpu.json"


@dataclass(frozen=True)
class Trial:
    """One measurement: which shape, where, and how many passes."""

    shape: str
    packing: Packing
    device: str
    warm_up: int = WARM_UP_PASSES
    timed: int = TIMED_PASSES


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rehearse", action="store_true", help="a tiny shape on a CPU, to see that it runs")
    if parser.parse_args(arguments).rehearse:
        found = {packing: _measure(Trial("tiny", packing, "cpu", warm_up=1, timed=2)) for packing in PACKINGS}
        print(json.dumps(found, indent=1))
    elif torch.cuda.is_available():
        _run()
    else:
        print(
            f"No GPU here. On one this would train LoRA r 16 by DPO, packed with shared prompts, packed apart and "
            f"padded, {TIMED_PASSES} passes {REPEATS} times in turn, and write pairs/s, useful tokens/s, MFU at 4N and "
            "peak memory:"
        )
        for name in SHAPES:
            print(f"  {name}: {_expectation(name)}")


def _run() -> None:
    found: dict[str, Any] = {}
    for name in SHAPES:
        rates: dict[Packing, list[dict[str, float]]] = {packing: [] for packing in PACKINGS}
        for repeat in range(REPEATS):
            for packing in PACKINGS:
                rates[packing].append(_measure(Trial(name, packing, "cuda")))
                print(f"{name} {packing} {repeat + 1}/{REPEATS}: {rates[packing][-1]}", file=sys.stderr, flush=True)
        found[name] = {packing: _median(taken) for packing, taken in rates.items()}
    record = {"machine": torch.cuda.get_device_name(), "torch": torch.__version__, "shapes": found}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({"command": "python -m benchmarks training_gpu", **record}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def _median(taken: list[dict[str, float]]) -> dict[str, Any]:
    middle = {key: round(statistics.median(one[key] for one in taken), 4) for key in taken[0]}
    rates = [one["pairs_per_s"] for one in taken]
    return {**middle, "pairs_per_s_range": [min(rates), max(rates)]}


def _expectation(name: str) -> str:
    """What the goal means for a shape, from its skeleton: no weights are made."""
    with tempfile.TemporaryDirectory() as folder:
        _llama_config(name).save_pretrained(folder)
        section = {"lora": {"r": 16}, "pass_tokens": PASS_TOKENS[name], "max_tokens": 2048, "device": "cuda"}
        settings = Config.model_validate({"base_model": {"model": folder}, "train_adapter": section})
        memory = memory_mib(settings) / 1024
    rate = GOAL_MFU * PEAK_FLOPS["NVIDIA H100"] / (4 * _num_matmul(name))
    return (
        f"N = {_num_matmul(name) / 1e9:.2f} billion, passes of {PASS_TOKENS[name]} tokens, about {memory:.0f} GiB; "
        f"{GOAL_MFU:.0%} MFU on an H100 would be {rate:,.0f} useful tokens/s"
    )


def _num_matmul(name: str) -> int:
    with torch.device("meta"):
        return LlamaForCausalLM(_llama_config(name)).num_parameters(exclude_embeddings=True)


def _llama_config(name: str) -> LlamaConfig:
    return LlamaConfig(**{**SHAPES, "tiny": TINY}[name], **COMMON)


def _measure(trial: Trial) -> dict[str, float]:
    model = _model(trial)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    multiple = FLEX_TOKENS if trial.device == "cuda" and trial.packing != "off" else 1
    layout = Layout(packing=trial.packing, pass_tokens=PASS_TOKENS[trial.shape], pad_id=0, multiple=multiple)
    rows = _rows(NUM_PAIRS if trial.device == "cuda" else 64)
    chosen = passes(rows, layout)
    random.Random(0).shuffle(chosen)  # from long to short rows, as they come, would time the longest only
    batches = [collate([rows[index] for index in chosen[number % len(chosen)]], layout) for number in _numbers(trial)]
    started = time.perf_counter()
    for batch in batches[: trial.warm_up]:
        _train(model, optimizer, batch)
    warm_up_s = _seconds_since(started, trial)
    if trial.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    started = time.perf_counter()
    for batch in batches[trial.warm_up :]:
        _train(model, optimizer, batch)
    seconds = _seconds_since(started, trial)
    reference_s = _reference_seconds(model, batches, trial)
    pairs = sum(len(batch["weights"]) for batch in batches[trial.warm_up :])
    tokens = sum(batch["num_tokens"] for batch in batches[trial.warm_up :])
    return {
        "pairs_per_s": pairs / seconds,
        "pairs_per_s_with_reference": pairs / (seconds + reference_s),
        "useful_tokens_per_s": tokens / seconds,
        "mfu_at_4n": 4 * _num_matmul(trial.shape) * tokens / seconds / _peak_flops(trial.device),
        "warm_up_s": warm_up_s,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if trial.device == "cuda" else 0.0,
    }


def _numbers(trial: Trial) -> range:
    return range(trial.warm_up + trial.timed)


def _train(model: Any, optimizer: torch.optim.Optimizer, batch: PackedBatch) -> None:
    batch = to_device(batch, model.device)
    (OBJECTIVE.loss(completion_log_probs(model, batch), batch) / len(batch["weights"])).backward()
    optimizer.step()
    optimizer.zero_grad()


@torch.no_grad()
def _reference_seconds(model: Any, batches: list[PackedBatch], trial: Trial) -> float:
    for batch in batches[: trial.warm_up]:
        completion_log_probs(model, to_device(batch, model.device))
    _seconds_since(0.0, trial)
    started = time.perf_counter()
    for batch in batches[trial.warm_up :]:
        completion_log_probs(model, to_device(batch, model.device))
    return _seconds_since(started, trial)


def _seconds_since(started: float, trial: Trial) -> float:
    if trial.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def _model(trial: Trial) -> Any:
    torch.manual_seed(0)
    with torch.device(trial.device):
        torch.set_default_dtype(torch.bfloat16)
        base = LlamaForCausalLM(_llama_config(trial.shape))
        torch.set_default_dtype(torch.float32)
    section = {"device": trial.device, "packing": trial.packing, "max_tokens": 2048}
    attend_by_row(base, Config.model_validate({"train_adapter": section}).train_adapter)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).to(trial.device)
    fuse(model)
    return model


def _rows(num_pairs: int) -> list[TokenizedRow]:
    """Pairs as long as PandaLM's: 58, 51 and 50 tokens in the mean, exponentially spread, of random tokens."""
    torch.manual_seed(1)
    sizes = torch.stack([torch.empty(num_pairs).exponential_(1 / mean) for mean in (58, 51, 50)], 1).clamp(4, 500).int()
    return [
        TokenizedRow(
            prompt=torch.randint(COMMON["vocab_size"], (prompt,)).tolist(),
            completions=tuple(torch.randint(COMMON["vocab_size"], (size,)).tolist() for size in answers),
            weight=1.0,
            reference=(0.0, 0.0),
        )
        for prompt, *answers in sizes.tolist()
    ]


def _peak_flops(device: str) -> float:
    name = torch.cuda.get_device_name() if device == "cuda" else ""
    return next((peak for known, peak in PEAK_FLOPS.items() if name.startswith(known)), float("nan"))


if __name__ == "__main__":
    main()
