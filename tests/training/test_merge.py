"""A merged adapter is a candidate like any other."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ratchet.adapter_files import check_servable
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.store import Store
from ratchet.training.merge import merge
from support import tiny_adapter


@pytest.fixture
def config(tiny_model: Path) -> Config:
    return Config.model_validate({"base_model": {"model": str(tiny_model), "dtype": "float32"}})


def published(lake: Store, config: Config, folder: Path, seed: int, rank: int = 8) -> Manifest:
    built = tiny_adapter.build(folder / str(seed), config, seed, rank=rank)
    return tiny_adapter.manifest("train_adapter", "adapter", tiny_adapter.publish(lake, built))


def updates(folder: Path) -> dict[str, torch.Tensor]:
    """What an adapter adds to each layer's weight."""
    tensors = load_file(folder / "adapter_model.safetensors")
    settings = json.loads((folder / "adapter_config.json").read_text())
    return {
        name: settings["lora_alpha"] / settings["r"] * tensors[name.replace("lora_A", "lora_B")] @ down
        for name, down in tensors.items()
        if "lora_A" in name
    }


def test_adapter_merged_with_itself_by_svd_is_itself(config, lake, tmp_path):
    one = published(lake, config, tmp_path, seed=1)
    twin = one.model_copy(update={"created_at": 1.0})
    made = merge(config, [one, twin], [0.25, 0.75], "svd", lake).manifest
    folder = lake.local(made.outputs["adapter"].uri)
    check_servable(folder)
    expected = updates(lake.local(one.outputs["adapter"].uri))
    torch.testing.assert_close(updates(folder), expected, rtol=1e-4, atol=1e-5)


def test_merge_is_a_manifest_of_train_adapter_made_once_with_its_lineage(config, lake, tmp_path):
    adapters = [published(lake, config, tmp_path, seed) for seed in (1, 2)]
    first, second = (merge(config, adapters, [0.5, 0.5], "dare_linear", lake) for _ in range(2))
    assert (first.is_new, second.is_new) == (True, False)
    assert first.manifest.uri.startswith("manifests/train_adapter/")
    assert list(first.manifest.inputs.values()) == [one.digest for one in adapters]
    other = merge(config, adapters, [0.9, 0.1], "dare_linear", lake).manifest
    assert other.outputs != first.manifest.outputs


def test_adapters_of_another_rank_are_refused(config, lake, tmp_path):
    adapters = [published(lake, config, tmp_path, 1), published(lake, config, tmp_path, 2, rank=16)]
    with pytest.raises(UserError, match=r"ranks are \[8, 16\]"):
        merge(config, adapters, [0.5, 0.5], "svd", lake)


@pytest.mark.parametrize(("num", "method", "why"), [(1, "svd", "two or more"), (2, "cat", "no such method")])
def test_recipe_that_cannot_work_is_refused(num, method, why, config, lake, tmp_path):
    adapters = [published(lake, config, tmp_path, seed) for seed in range(num)]
    with pytest.raises(UserError, match=why):
        merge(config, adapters, [1.0] * num, method, lake)
