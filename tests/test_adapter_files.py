"""An adapter that PEFT, vLLM and the CPU pool would not serve alike is refused, with the reason."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from ratchet.adapter_files import CONFIG, LIMIT, NUMBERS, WEIGHTS, check_servable, check_weights
from ratchet.errors import UserError

GOOD = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "bias": "none", "target_modules": ["q_proj"]}
FACTORS = {f"base_model.model.layers.{n}.q_proj.lora_{side}.weight": torch.ones(8, 8) for n in (0, 1) for side in "AB"}
ONE = min(FACTORS)
Tensors = dict[str, torch.Tensor]


def folder(path: Path, tensors: Tensors = FACTORS, **settings: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / CONFIG).write_text(json.dumps(GOOD | settings))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path / WEIGHTS)
    return path


@pytest.mark.parametrize("rank", [1, 4, 8, 12, 512])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_plain_lora_of_any_rank_is_servable(tmp_path: Path, rank: int, dtype: torch.dtype) -> None:
    tensors = {name: torch.ones(8, 8, dtype=dtype) for name in FACTORS}
    for name in tensors:
        tensors[name] = tensors[name][:1].expand(rank, 8) if "lora_A" in name else tensors[name][:, :1].expand(8, rank)
    shape = check_servable(folder(tmp_path, tensors, r=rank, lora_alpha=2.5))
    assert (shape.rank, shape.scaling, shape.targets) == (rank, 2.5 / rank, ("q_proj",))
    assert check_servable(folder(tmp_path, tensors, r=rank, use_rslora=True)).scaling == 16 / rank**0.5


def test_config_as_peft_writes_it_is_servable(tmp_path: Path) -> None:
    folder(tmp_path)
    LoraConfig(r=8, target_modules=["q_proj"]).save_pretrained(tmp_path)
    check_servable(tmp_path)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"r": 0}, "r = 0"),
        ({"r": 513}, "r = 513"),
        ({"r": "8"}, "r = '8'"),
        ({"r": True}, "r = True"),
        ({"r": 16}, "not of rank 16"),
        ({"lora_alpha": "16"}, "lora_alpha = '16'"),
        ({"lora_alpha": None}, "lora_alpha = None"),
        ({"lora_alpha": float("inf")}, "lora_alpha = inf"),
        ({"lora_alpha": float("nan")}, "lora_alpha = nan"),
        ({"lora_alpha": 10**400}, "lora_alpha = 1000"),
        ({"lora_alpha": -16}, "lora_alpha = -16"),
        ({"target_modules": None}, "target_modules = None"),
        ({"target_modules": 7}, "target_modules = 7"),
        ({"target_modules": []}, r"target_modules = \[\]"),
        ({"target_modules": ["q_proj", 7]}, "target_modules = "),
        ({"target_modules": "([a-z_.0-9]+)+!"}, "a regular expression may take for ever"),
        ({"target_modules": "all-linear"}, "list the layers' names"),
        ({"target_modules": ["q_proj", "v_proj"]}, "name v_proj, for which there is no update"),
        ({"target_modules": ["v_proj"]}, "update for layers.0.q_proj, which target_modules do not name"),
        ({"layers_to_transform": [0]}, "layers_to_transform"),
        ({"exclude_modules": ["q_proj"]}, "exclude_modules"),
        ({"bias": "all"}, "bias"),
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"a_feature_of_tomorrow": True}, "a_feature_of_tomorrow"),
        ({"init_lora_weights": "pissa"}, "base weights"),
        ({"init_lora_weights": ["pissa"]}, "base weights"),
        ({"peft_type": "IA3"}, "IA3"),
        ({"peft_type": ["LORA"]}, "peft_type"),
        ({"base_model_name_or_path": "x" * (1 << 20)}, "no configuration"),
    ],
)
def test_any_other_configuration_is_refused_with_the_reason(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    with pytest.raises(UserError, match=why):
        check_servable(folder(tmp_path, **changes))


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({ONE: torch.ones(8, 8)}, "one factor of two"),
        ({}, "name q_proj, for which there is no update"),
        ({"base_model.model.q_proj.lora_magnitude_vector.weight": torch.ones(8)}, "no factor"),
        ({"model.q_proj.lora_A.weight": torch.ones(8, 8)}, "no factor"),
        ({**FACTORS, ONE: torch.ones(8)}, "has the shape"),
        ({**FACTORS, ONE: torch.ones(8, 8, dtype=torch.int8)}, "numbers of type 'I8'"),
        ({**FACTORS, ONE: torch.full((8, 8), float("nan"))}, "NaN"),
        ({**FACTORS, ONE: torch.full((8, 8), float("-inf"), dtype=torch.bfloat16)}, "NaN"),
        ({**FACTORS, ONE: torch.full((8, 8), float("nan"), dtype=torch.float16)}, "NaN"),
        ({**FACTORS, ONE: torch.full((8, 8), 1e30)}, "65536 or more"),
    ],
)
def test_tensors_that_are_no_finite_factors_are_refused(tmp_path: Path, tensors: Tensors, why: str) -> None:
    with pytest.raises(UserError, match=why):
        check_servable(folder(tmp_path, tensors))


KINDS = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16}


@given(kind=st.sampled_from(sorted(NUMBERS)), data=st.binary(min_size=8, max_size=64))
@example(kind="F32", data=struct.pack("<2f", 65535.99, -65536))
@example(kind="F32", data=struct.pack("<2f", 65535.99, -65535.99))
@example(kind="F64", data=struct.pack("<d", 65536))
@example(kind="F64", data=struct.pack("<d", 65535.999))
@example(kind="F16", data=struct.pack("<4e", 65504, -65504, float("inf"), 0))
@example(kind="F16", data=struct.pack("<4e", 65504, -65504, 1, 0))
def test_numbers_that_are_too_large_are_found_by_their_bytes(kind: str, data: bytes) -> None:
    whole = bytearray(data[: len(data) // 8 * 8])
    numbers = torch.frombuffer(whole, dtype=KINDS[kind]).double()
    assert NUMBERS[kind].spoil(bytes(whole)) == (not bool((numbers.abs() < LIMIT).all()))


def rewritten(header: Callable[[dict[str, Any]], object], data: bytes = b"") -> Callable[[bytes], bytes]:
    """Bytes of a safetensors file with another header, and more data."""

    def rewrite(whole: bytes) -> bytes:
        length = int.from_bytes(whole[:8], "little")
        known = json.loads(whole[8 : 8 + length])
        text = json.dumps(header(known) or known).encode()
        return len(text).to_bytes(8, "little") + text + whole[8 + length :] + data

    return rewrite


FAULTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "short": lambda whole: whole[:500],
    "header of 2^63 bytes": lambda whole: (1 << 63).to_bytes(8, "little") + whole[8:],
    "header of 200 MiB": lambda whole: (200 << 20).to_bytes(8, "little") + b" " * (200 << 20),
    "not JSON": lambda whole: whole[:8] + b"#" + whole[9:],
    "a list": rewritten(lambda header: [header]),
    "deep": lambda whole: (100_000).to_bytes(8, "little") + b"[" * 100_000,
    "bytes of no tensor": rewritten(lambda header: None, b"more"),
    "a shape that is larger": rewritten(lambda header: header[ONE].update(shape=[1 << 40, 8])),
    "a shape below 0": rewritten(lambda header: header[ONE].update(shape=[-8, -8])),
    "offsets as text": rewritten(lambda header: header[ONE].update(data_offsets=["0", "256"])),
    "two tensors in one place": rewritten(
        lambda header: header[max(FACTORS)].update(data_offsets=header[ONE]["data_offsets"])
    ),
    "type of many names": rewritten(lambda header: header[ONE].update(dtype=["F32"])),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_files_that_are_no_safetensors_are_refused(tmp_path: Path, fault: str) -> None:
    path = folder(tmp_path) / WEIGHTS
    path.write_bytes(FAULTS[fault](path.read_bytes()))
    for check in (check_servable, check_weights):
        with pytest.raises(UserError, match="cannot be served"):
            check(tmp_path)


@given(position=st.integers(0, 2000), byte=st.integers(0, 255))
def test_a_file_that_passes_is_one_that_safetensors_reads(
    tmp_path_factory: pytest.TempPathFactory, position: int, byte: int
) -> None:
    """Any one byte may be wrong: a UserError, or the library reads finite factors too."""
    place = folder(tmp_path_factory.getbasetemp() / "mutated") / WEIGHTS
    whole = bytearray(place.read_bytes())
    whole[position % len(whole)] = byte
    place.write_bytes(whole)
    try:
        check_servable(place.parent)
    except UserError:
        return
    assert all(tensor.isfinite().all() for tensor in load_file(place).values())


def test_pickled_weights_are_not_weights(tmp_path: Path) -> None:
    target = folder(tmp_path)
    (target / WEIGHTS).rename(target / "adapter_model.bin")
    with pytest.raises(UserError, match=r"adapter_model.safetensors is missing"):
        check_servable(target)


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, "\udc80"])
def test_broken_config_is_refused(tmp_path: Path, text: str) -> None:
    target = folder(tmp_path)
    (target / CONFIG).write_text(text, errors="surrogateescape")
    with pytest.raises(UserError, match="cannot be served"):
        check_servable(target)
