"""Check that vLLM can serve an adapter folder, before it is published and again before it is loaded."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ratchet.config import Rank
from ratchet.errors import UserError

WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "adapter.json"
RANKS = get_args(Rank)  # vLLM's --max-lora-rank takes these and no others

# Keys that do not change the served function, or that vLLM honours. vLLM ignores keys that it does not know, so it
# would serve an adapter without any feature outside this list: a key outside it that is switched on is refused.
# fmt: off
HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "exclude_modules", "inference_mode", "init_lora_weights",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "peft_type",
    "peft_version", "qalora_group_size", "r", "revision", "target_modules", "task_type",
    "use_rslora",
})
# fmt: on


def check_servable(folder: Path) -> None:
    """Raise UserError, with the reason, for an adapter folder that vLLM would refuse or serve as something else."""
    if fault := _fault(folder):
        raise UserError(f"the adapter at {folder} cannot be served: {fault}")


@dataclass(frozen=True)
class Shape:
    """The shape of a servable adapter's update: `scaling` is alpha / r, or alpha / sqrt(r) if rank-stabilised."""

    rank: int
    scaling: float
    targets: tuple[str, ...] | str

    def includes(self, layer: str) -> bool:
        """Return whether `targets` name the layer: by the end of its path, or by a regular expression for all of it."""
        if isinstance(self.targets, str):
            return re.fullmatch(self.targets, layer) is not None
        return f".{layer}".endswith(tuple(f".{target}" for target in self.targets))


def read_shape(folder: Path) -> Shape:
    """Read the shape of an adapter folder that has passed `check_servable`."""
    settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    rank, targets = settings["r"], settings["target_modules"]
    scaling = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
    return Shape(rank, scaling, targets if isinstance(targets, str) else tuple(targets))


def _fault(folder: Path) -> str | None:
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            return f"{name} is missing"
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        return f"{CONFIG} is not JSON: {error}"
    return _config_fault(settings) if isinstance(settings, dict) else f"{CONFIG} is no JSON object"


def _config_fault(settings: dict[str, Any]) -> str | None:
    if settings.get("peft_type") != "LORA":
        return f"peft_type is {settings.get('peft_type')!r}, not 'LORA'"
    if settings.get("r") not in RANKS:
        return f"r = {settings.get('r')!r}; the ranks served are {', '.join(map(str, RANKS))}"
    if settings.get("bias", "none") != "none":
        return f"bias = {settings['bias']!r}; train with bias = 'none'"
    if settings.get("init_lora_weights", True) not in (True, False, "gaussian"):
        return f"init_lora_weights = {settings['init_lora_weights']!r} changes the base weights"
    switched_on = sorted(key for key, value in settings.items() if value and key not in HARMLESS)
    return f"{', '.join(switched_on)} is set, which the server would refuse or ignore" if switched_on else None
