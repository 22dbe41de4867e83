"""The tiny model under a fresh adapter with random, non-zero weights; settings that train it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ratchet.config import Config


@pytest.fixture
def adapted(tiny_model: Path) -> Callable:
    """Make (PEFT model, tokenizer): float32, eager attention, every LoRA matrix random from the seed."""

    def make(seed: int = 0):
        import torch
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        base = AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager", dtype=torch.float32)
        torch.manual_seed(seed)
        config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        model = get_peft_model(base, config)
        perturb(model)
        return model, AutoTokenizer.from_pretrained(tiny_model)

    return make


@pytest.fixture
def prepared(adapted: Callable) -> Callable:
    """The same model as the step trains it: our attention, our LoRA layers."""

    def make(seed: int = 0):
        from ratchet.config import TrainAdapter
        from ratchet.training.attention import attend_by_row
        from ratchet.training.fused_lora import fuse

        model, tokenizer = adapted(seed)
        attend_by_row(model.get_base_model(), TrainAdapter())
        fuse(model)
        return model, tokenizer

    return make


@pytest.fixture(scope="module")
def settings(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Config]:
    """Configurations that share one MLflow database: making one takes longer than training."""
    database = tmp_path_factory.mktemp("mlflow") / "mlflow.db"

    def make(**train_adapter: object) -> Config:
        phase = {"batch_rows": 4, "epochs": 2, "learning_rate": 1e-2}
        section = {
            "sft": phase,
            "dpo": phase,
            "checkpoint_steps": 2,
            "max_tokens": 96,
            "pass_tokens": 192,
            "threads": 1,
            **train_adapter,
        }
        return Config.model_validate(
            {
                "base_model": {"model": str(tiny_model), "dtype": "float32"},
                "registry": {"tracking_uri": f"sqlite:///{database}"},
                "train_adapter": section,
            }
        )

    return make


def perturb(model) -> None:
    import torch

    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.normal_(0, 0.05)
