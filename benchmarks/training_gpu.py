"""DPO on one GPU at the shapes of Llama 3.2 1B and 3.1 8B, random weights: pairs/s, useful tokens/s, MFU, peak memory.

Weights do not change the speed, so none are downloaded; lengths are PandaLM's. MFU counts 4N floating-point operations
a useful token (LoRA's forward and activation-gradient passes; N without embeddings), each prompt once, attention apart.

    python -m benchmarks training_gpu         # writes benchmarks/results/training-gpu.json; says so without a GPU
"""

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ratchet.config import Config, Packing
from ratchet.training.attention import FLEX_TOKENS, attend_by_row
from ratchet.training.batches import Layout, collate, passes
from ratchet.training.fused_lora import fuse
from ratchet.training.objectives import dpo_objective
from ratchet.training.policy import completion_log_probs, to_device
from ratchet.training.rows import Row

SHAPES: dict[str, dict[str, int]] = {
    "1B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
}
COMMON = {"num_key_value_heads": 8, "vocab_size": 128_256, "max_position_embeddings": 8192}
PACKINGS: tuple[Packing, ...] = ("shared", "separate", "off")
PASS_TOKENS, NUM_PAIRS, WARM_UP_PASSES, TIMED_PASSES, REPEATS = 16_384, 4096, 20, 100, 3
PEAK_FLOPS = {"NVIDIA H100": 989e12, "NVIDIA H200": 989e12}  # dense bfloat16, from the makers' data sheets
RESULT = Path(__file__).parent / "results" / "training-gpu.json"


def main(arguments: Sequence[str] = ()) -> None:
    if not torch.cuda.is_available():
        print(
            f"No GPU here. On one this would train LoRA r 16 by DPO at the shapes {', '.join(SHAPES)}, packed with "
            f"shared prompts, packed apart and padded, {TIMED_PASSES} passes of {PASS_TOKENS} tokens, {REPEATS} times "
            "in turn, and write pairs/s, useful tokens/s, MFU at 4N and peak memory."
        )
        return
    device = torch.cuda.get_device_name()
    found = {name: _shape(name) for name in SHAPES}
    record = {"machine": device, "torch": torch.__version__, "command": "python -m benchmarks training_gpu"}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps({**record, "shapes": found}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def _shape(name: str) -> dict[str, Any]:
    rates: dict[Packing, list[dict[str, float]]] = {packing: [] for packing in PACKINGS}
    for _ in range(REPEATS):
        for packing in PACKINGS:
            rates[packing].append(_measure(name, packing))
    return {packing: _median(taken) for packing, taken in rates.items()}


def _median(taken: list[dict[str, float]]) -> dict[str, Any]:
    middle = {key: round(statistics.median(one[key] for one in taken), 4) for key in taken[0]}
    return {
        **middle,
        "pairs_per_s_range": [min(one["pairs_per_s"] for one in taken), max(one["pairs_per_s"] for one in taken)],
    }


def _measure(name: str, packing: Packing) -> dict[str, float]:
    model = _model(name, packing)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-5, fused=True)
    rows = _rows()
    multiple = 1 if packing == "off" else FLEX_TOKENS
    layout = Layout(packing=packing, pass_tokens=PASS_TOKENS, pad_id=0, multiple=multiple)
    objective = dpo_objective("sigmoid", 0.1)
    chosen = passes(rows, layout)
    for number in range(WARM_UP_PASSES + TIMED_PASSES):
        if number == WARM_UP_PASSES:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
            start, pairs, tokens = time.perf_counter(), 0, 0
        batch = to_device(collate([rows[index] for index in chosen[number % len(chosen)]], layout), model.device)
        (objective.loss(completion_log_probs(model, batch), batch) / len(batch["weights"])).backward()
        optimizer.step()
        optimizer.zero_grad()
        if number >= WARM_UP_PASSES:
            pairs, tokens = pairs + len(batch["weights"]), tokens + batch["num_tokens"]
    torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    flops = 4 * model.get_base_model().num_parameters(exclude_embeddings=True)
    return {
        "pairs_per_s": pairs / seconds,
        "useful_tokens_per_s": tokens / seconds,
        "mfu_at_4n": flops * tokens / seconds / _peak_flops(),
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30,
    }


def _model(name: str, packing: Packing) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    with torch.device("cuda"):
        torch.set_default_dtype(torch.bfloat16)
        base = LlamaForCausalLM(LlamaConfig(**SHAPES[name], **COMMON))
        torch.set_default_dtype(torch.float32)
    settings = Config.model_validate({"train_adapter": {"device": "cuda", "packing": packing, "max_tokens": 2048}})
    attend_by_row(base, settings.train_adapter)
    lora = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(base, lora).to("cuda")
    fuse(model)
    return model


def _rows() -> list[Row]:
    """Pairs as long as PandaLM's: 58, 51 and 50 tokens in the mean, exponentially spread, of random tokens."""
    torch.manual_seed(1)
    sizes = torch.stack([torch.empty(NUM_PAIRS).exponential_(1 / mean) for mean in (58, 51, 50)], 1).clamp(4, 500).int()
    return [
        Row(
            prompt=torch.randint(COMMON["vocab_size"], (prompt,)).tolist(),
            completions=tuple(torch.randint(COMMON["vocab_size"], (size,)).tolist() for size in answers),
            weight=1.0,
            reference=(0.0, 0.0),
        )
        for prompt, *answers in sizes.tolist()
    ]


def _peak_flops() -> float:
    name = torch.cuda.get_device_name()
    return next((peak for known, peak in PEAK_FLOPS.items() if name.startswith(known)), float("nan"))


if __name__ == "__main__":
    main()
