"""Our LoRA against PEFT's, its oracle."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file

from ratchet.adapter_files import CONFIG, WEIGHTS
from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.inference.lora import MultiLoraModel

IDS = torch.tensor([[5, 9, 11, 7, 3], [4, 4, 30, 2, 8], [17, 1, 6, 6, 21]])
SHAPES = {
    "small": LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"]),
    "large": LoraConfig(r=16, lora_alpha=4, target_modules="all-linear"),
    "stabilised": LoraConfig(r=8, lora_alpha=16, target_modules=["down_proj", "q_proj"], use_rslora=True),
}


@pytest.fixture(scope="module")
def folders(config: Config, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of unlike rank, scaling and layers."""
    return {
        name: write_adapter(config, tmp_path_factory.mktemp("lora") / name, shape) for name, shape in SHAPES.items()
    }


def write_adapter(config: Config, folder: Path, shape: LoraConfig) -> Path:
    torch.manual_seed(1)
    wrapped = get_peft_model(load_base(config.base_model)[0], shape)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    wrapped.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def lora(config: Config, folders: dict[str, Path]) -> MultiLoraModel:
    lora = MultiLoraModel(load_base(config.base_model)[0])
    for name, folder in folders.items():
        lora.load(folder, name)
    return lora


@torch.inference_mode()
def logits(lora: MultiLoraModel, *names: str | None) -> torch.Tensor:
    lora.choose(names)
    found: torch.Tensor = lora.model(IDS).logits
    return found


def by_peft(config: Config, folder: Path | None) -> torch.Tensor:
    model: Any = load_base(config.base_model)[0]
    if folder is not None:
        model = PeftModel.from_pretrained(model, str(folder)).eval()
    with torch.inference_mode():
        found: torch.Tensor = model(IDS).logits
    return found


@pytest.mark.parametrize("name", [None, *SHAPES])
def test_every_row_gets_what_peft_gives(
    config: Config, lora: MultiLoraModel, folders: dict[str, Path], name: str | None
) -> None:
    expected = by_peft(config, folders[name] if name else None)
    torch.testing.assert_close(logits(lora, name), expected, atol=1e-4, rtol=1e-4)


def test_each_row_of_a_mixed_batch_gets_its_own(config: Config, lora: MultiLoraModel, folders: dict[str, Path]) -> None:
    for names in (["large", None, "small"], ["stabilised", "large", "small"], [None, None, None]):
        found = logits(lora, *names)
        for row, name in enumerate(names):
            expected = by_peft(config, folders[name] if name else None)[row]
            torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def test_an_unloaded_adapter_is_gone_and_its_name_is_free(config: Config, folders: dict[str, Path]) -> None:
    lora = MultiLoraModel(load_base(config.base_model)[0])
    lora.load(folders["small"], "it")
    before = logits(lora, "it")
    lora.unload("it")
    assert torch.equal(logits(lora, None), by_peft(config, None))
    lora.load(folders["large"], "it")
    assert not torch.allclose(logits(lora, "it"), before)


def test_an_adapter_of_another_base_is_refused(
    config: Config, lora: MultiLoraModel, folders: dict[str, Path], tmp_path: Path
) -> None:
    for place, words in (("other.", "no layer here"), ("", "its factors take 3")):
        tensors = load_file(folders["small"] / WEIGHTS)
        tensors = {key.replace("base_model.model.", f"base_model.model.{place}"): tensors[key] for key in tensors}
        if not place:
            tensors = {key: torch.zeros(8, 3) if "lora_A" in key else tensor for key, tensor in tensors.items()}
        folder = tmp_path / words.split()[0]
        folder.mkdir()
        (folder / "adapter_config.json").write_bytes((folders["small"] / "adapter_config.json").read_bytes())
        save_file(tensors, folder / WEIGHTS)
        with pytest.raises(UserError, match=words):
            lora.load(folder, "bad")


def test_an_adapter_that_overflows_does_not_reach_other_rows(config: Config, tmp_path: Path) -> None:
    """In float16, where infinity is near: finite factors whose product with anybody's row is not."""
    half = config.model_copy(update={"base_model": config.base_model.model_copy(update={"dtype": "float16"})})
    folder = write_adapter(half, tmp_path / "loud", LoraConfig(r=8, lora_alpha=16, target_modules=["down_proj"]))
    tensors = load_file(folder / WEIGHTS)
    save_file({name: torch.full_like(tensor, 60000) for name, tensor in tensors.items()}, folder / WEIGHTS)
    loud = MultiLoraModel(load_base(half.base_model)[0])
    alone = logits(loud, None)
    with pytest.raises(UserError, match="scaled, is not finite"):
        loud.load(folder, "loud")
    settings = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**settings, "lora_alpha": 8}))
    loud.load(folder, "loud")
    together = logits(loud, "loud", None, "loud")
    assert not together[0].isfinite().all(), "an adapter that does not overflow proves nothing"
    assert together[1].isfinite().all()
    torch.testing.assert_close(together[1], alone[1])


def test_a_broken_file_is_refused(lora: MultiLoraModel, folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_bytes((folders["small"] / "adapter_config.json").read_bytes())
    (tmp_path / WEIGHTS).write_bytes((folders["small"] / WEIGHTS).read_bytes()[:500])
    with pytest.raises(UserError, match="cannot be read"):
        lora.load(tmp_path, "bad")
