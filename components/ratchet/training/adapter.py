"""Write an adapter folder: weights, PEFT's configuration and our card, as bytes that depend on their content alone."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet import __version__
from ratchet.adapter_files import CARD, CONFIG, WEIGHTS, check_servable
from ratchet.base_model import base_folder, revision
from ratchet.config import BaseModelSource, Config, Lora
from ratchet.digest import digest_bytes
from ratchet.errors import UserError

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase


def write_adapter(
    folder: Path, model: "PeftModel", tokenizer: "PreTrainedTokenizerBase", config: Config, dataset_digest: str
) -> None:
    """Write the trained model's adapter folder. Raises UserError if training diverged, or vLLM would refuse it."""
    from peft import get_peft_model_state_dict

    tensors = get_peft_model_state_dict(model, save_embedding_layers=False)
    target_modules = sorted(model.peft_config["default"].target_modules)
    write_folder(folder, tensors, peft_config(config, target_modules), card(config, tokenizer, dataset_digest))
    if config.train_adapter.target == "vllm":
        check_servable(folder)


def write_folder(folder: Path, tensors: dict[str, Any], settings: dict[str, Any], origin: dict[str, Any]) -> None:
    """Write LoRA factors, PEFT's settings and our card. Raises UserError for factors that are not finite."""
    import torch
    from safetensors.torch import save_file

    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise UserError(f"training diverged: {broken[0]} is not finite; lower train_adapter's learning rates")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    _write_json(folder / CONFIG, settings)
    _write_json(folder / CARD, origin)


def peft_config(config: Config, target_modules: list[str]) -> dict[str, Any]:
    """Return the configuration that PEFT and vLLM read.

    Not the one that PEFT writes: it holds the base model's path on this machine and an unordered set.
    """
    lora: Lora = config.train_adapter.lora
    variant = {"use_dora": True} if lora.dora else {}
    return {
        **variant,
        "base_model_name_or_path": base_name(config.base_model),
        "bias": "none",
        "inference_mode": True,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "peft_type": "LORA",
        "r": lora.r,
        "revision": revision(config.base_model),
        "target_modules": target_modules,
        "task_type": "CAUSAL_LM",
        "use_rslora": lora.rank_stabilized,
    }


def card(config: Config, tokenizer: "PreTrainedTokenizerBase", dataset_digest: str) -> dict[str, Any]:
    """Return the adapter's origin: enough to train it again."""
    return {
        "base_model": base_name(config.base_model),
        "base_revision": revision(config.base_model),
        "chat_template_hash": digest_bytes(str(tokenizer.chat_template).encode()),
        "code_version": __version__,
        "dataset_digest": dataset_digest,
        "dtype": config.base_model.dtype,
        "seed": config.seed,
        "settings": config.train_adapter.model_dump(mode="json"),
    }


def base_name(source: BaseModelSource) -> str:
    """Return the base model's configured name; for a folder its last part: a local path means nothing elsewhere."""
    folder = base_folder(source)
    return Path(source.model).name if folder and folder == Path(source.model) else source.model


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")
