"""LoRA adapters on the tiny model, as `train_adapter` publishes them, and the manifests around one."""

import json
from pathlib import Path

from ratchet.adapter_files import CONFIG, PREFIX, WEIGHTS
from ratchet.base_model import revision
from ratchet.config import Config
from ratchet.digest import digest_tree
from ratchet.manifest import Artifact, Manifest
from ratchet.store import LocalStore


def build(
    folder: Path,
    config: Config,
    seed: int,
    strength: float = 0.05,
    target_modules: str | list[str] = "all-linear",
    rank: int = 8,
) -> Path:
    """Write an adapter with random weights; `strength` 0 leaves the base model as it is."""
    import torch
    from peft import LoraConfig, get_peft_model

    from ratchet.base_model import load_base

    base, _ = load_base(config.base_model)
    torch.manual_seed(seed)
    model = get_peft_model(
        base, LoraConfig(r=rank, lora_alpha=16, target_modules=target_modules, task_type="CAUSAL_LM")
    )
    for name, tensor in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(tensor.data, std=strength)
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()
    card = {
        "base_model": "tiny",
        "base_revision": revision(config.base_model),
        "chat_template_hash": "c" * 64,
        "code_version": "0",
        "dataset_digest": "d" * 64,
    }
    (folder / "adapter.json").write_text(json.dumps(card))
    return folder


def smallest(folder: Path, value: float = 1.0) -> Path:
    """Write the least that may be registered and released: one layer's update, of rank 1, and no card."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "target_modules": ["q_proj"]}
    (folder / CONFIG).write_text(json.dumps(settings))
    save_file({f"{PREFIX}q_proj.lora_{side}.weight": torch.full((1, 1), value) for side in "AB"}, folder / WEIGHTS)
    return folder


def publish(store: LocalStore, folder: Path) -> Artifact:
    digest = digest_tree(folder)
    store.put_tree(folder, f"adapters/{digest}")
    return Artifact(uri=f"adapters/{digest}", digest=digest)


def manifest(step: str, name: str, artifact: Artifact) -> Manifest:
    return Manifest(
        outputs={name: artifact}, step=step, key="k", inputs={}, code_version="0", created_at=0.0, seconds=0.0
    )
