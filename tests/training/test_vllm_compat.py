"""What vLLM would refuse, or ignore, is refused."""

import json

import pytest

from ratchet.errors import UserError
from ratchet.training.vllm_compat import check_servable

GOOD = {"peft_type": "LORA", "r": 8, "bias": "none", "target_modules": ["q_proj"], "use_rslora": False}


def folder(tmp_path, **changes):
    (tmp_path / "adapter_config.json").write_text(json.dumps(GOOD | changes))
    (tmp_path / "adapter_model.safetensors").touch()
    return tmp_path


def test_plain_lora_is_servable(tmp_path):
    check_servable(folder(tmp_path))


def test_config_as_peft_writes_it_is_servable(tmp_path):
    from peft import LoraConfig

    LoraConfig(r=16, target_modules=["q_proj"]).save_pretrained(tmp_path)
    (tmp_path / "adapter_model.safetensors").touch()
    check_servable(tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"r": 12}, "r = 12"),
        ({"bias": "all"}, "bias"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"a_feature_of_tomorrow": True}, "a_feature_of_tomorrow"),
        ({"init_lora_weights": "pissa"}, "base weights"),
        ({"peft_type": "IA3"}, "IA3"),
    ],
)
def test_anything_else_is_refused_with_the_reason(changes, why, tmp_path):
    with pytest.raises(UserError, match=why):
        check_servable(folder(tmp_path, **changes))


def test_pickled_weights_are_not_weights(tmp_path):
    target = folder(tmp_path)
    (target / "adapter_model.safetensors").rename(target / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model.safetensors is missing"):
        check_servable(target)


@pytest.mark.parametrize("text", ["{", "[]"])
def test_broken_config_is_refused(text, tmp_path):
    target = folder(tmp_path)
    (target / "adapter_config.json").write_text(text)
    with pytest.raises(UserError, match="JSON"):
        check_servable(target)
