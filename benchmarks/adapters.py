"""Tokens a second from a batch that mixes the base model and two adapters: our low-rank product against PEFT's.

The base model alone, without any adapter, is the floor that both stand on.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from ratchet.base_model import load_base
from ratchet.config import BaseModelSource
from ratchet.inference.lora import MultiLoraModel

NUM_ROWS = 32
NUM_TOKENS = 12  # generated a row; the cost of one does not change with how many there are
REPEATS = 3
SLOTS = [None, "one", "two"]


def run() -> dict[str, float]:
    """Tokens a second of each arm, the best of REPEATS interleaved runs."""
    with TemporaryDirectory() as folder:
        paths = {slot: _adapter(Path(folder) / slot) for slot in SLOTS if slot}
        lora, mixed = MultiLoraModel(load_base(BaseModelSource())[0]), _peft(paths)
        for slot, path in paths.items():
            lora.load(path, slot)
    names = [SLOTS[row % len(SLOTS)] for row in range(NUM_ROWS)]
    arms = {
        "ours": lambda: _decode(lora.model, lambda: lora.choose(names)),
        "PEFT": lambda: _decode(mixed, lambda: None, adapter_names=[name or "__base__" for name in names]),
        "base alone": lambda: _decode(lora.model, lambda: lora.choose([None])),
    }
    best = dict.fromkeys(arms, 0.0)
    for _ in range(REPEATS):
        for name, arm in arms.items():
            best[name] = max(best[name], arm())
    return best


def _adapter(folder: Path) -> Path:
    model = get_peft_model(load_base(BaseModelSource())[0], LoraConfig(r=8, target_modules="all-linear"))
    model.save_pretrained(folder)
    return folder


def _peft(paths: dict[str, Path]) -> Any:
    (first, path), *others = paths.items()
    model = PeftModel.from_pretrained(load_base(BaseModelSource())[0], str(path), adapter_name=first)
    for name, folder in others:
        model.load_adapter(str(folder), adapter_name=name)
    return model.eval()


@torch.inference_mode()
def _decode(model: Any, choose: Callable[[], None], **mixed: Any) -> float:
    choose()
    ids = torch.arange(NUM_ROWS * 8).view(NUM_ROWS, 8) + 100
    last = torch.tensor([7])
    cache = model(input_ids=ids, use_cache=True, logits_to_keep=last, **mixed).past_key_values
    start = time.perf_counter()
    for _ in range(NUM_TOKENS):
        model(input_ids=ids[:, :1], past_key_values=cache, logits_to_keep=torch.tensor([0]), **mixed)
    return NUM_ROWS * NUM_TOKENS / (time.perf_counter() - start)
