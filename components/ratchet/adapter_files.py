"""The files of an adapter folder, and the one check that all who publish, register, release or load one make.

Standard library only: the syncer and the release services run where neither torch nor NumPy is installed.
"""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NamedTuple

from ratchet.errors import UserError

WEIGHTS, CONFIG, CARD = "adapter_model.safetensors", "adapter_config.json", "adapter.json"
MAX_RANK = 512  # the largest that vLLM's --max-lora-rank takes
LIMIT = 1 << 16  # float16 holds nothing from here on
MAX_CONFIG_BYTES = 1 << 20
MAX_HEADER_BYTES = 16 << 20  # some 100,000 tensors
CHUNK_BYTES = 4 << 20
PREFIX = "base_model.model."  # PEFT's, before the base model's own names

# Keys that do not change the served function, or that vLLM honours. vLLM ignores keys that it does not know, so it
# would serve an adapter without any feature outside this list: a key outside it that is switched on is refused.
# fmt: off
HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "inference_mode", "init_lora_weights", "lora_alpha",
    "lora_dropout", "megatron_core", "peft_type", "peft_version", "qalora_group_size", "r", "revision",
    "target_modules", "task_type", "use_rslora",
})
# fmt: on


@dataclass(frozen=True)
class Shape:
    """The shape of a servable adapter's update: `scaling` is alpha / r, or alpha / sqrt(r) if rank-stabilised."""

    rank: int
    scaling: float
    targets: tuple[str, ...]

    def includes(self, layer: str) -> bool:
        """Return whether `targets` name the layer, by the end of its path."""
        return f".{layer}".endswith(tuple(f".{target}" for target in self.targets))


class Tensor(NamedTuple):
    """One entry of a safetensors header: where its bytes begin and end, counted from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Number:
    """A float of `size` bytes whose magnitude is `LIMIT` or more, infinite or NaN: by its two highest bytes.

    Little-endian; bit 7 of the highest byte is the sign.
    """

    size: int
    high: int
    """Lowest highest byte, without sign, of which at least some numbers are too large."""
    low: int
    """Lowest byte below it that makes them so; 0: all numbers with `high` are too large."""

    def spoil(self, data: bytes) -> bool:
        """Return whether any of the numbers in `data` is too large. As fast as the disk: no loop in Python."""
        tops = data[self.size - 1 :: self.size]
        above = bytes(byte & 0x7F > self.high for byte in range(256))
        if 1 in tops.translate(above):
            return True
        equal = bytes(byte & 0x7F == self.high for byte in range(256))
        too_low = bytes(byte >= self.low for byte in range(256))
        seconds = data[self.size - 2 :: self.size].translate(too_low)
        return bool(int.from_bytes(tops.translate(equal), "little") & int.from_bytes(seconds, "little"))


NUMBERS: Mapping[str, Number] = {
    "F64": Number(8, 0x40, 0xF0),
    "F32": Number(4, 0x47, 0x80),
    "BF16": Number(2, 0x47, 0x80),
    "F16": Number(2, 0x7C, 0),  # of which only the infinities and NaN are too large
}


def check_servable(folder: Path) -> Shape:
    """Return the shape of an adapter that PEFT, vLLM and our CPU pool serve alike; any other raises UserError.

    vLLM would serve many others as something else, in silence. Not known here: whether the base model has the layers.
    """
    try:
        settings = _settings(folder)
        _check_settings(settings)
        rank, targets = settings["r"], tuple(settings["target_modules"])
        scaling = settings["lora_alpha"] / (rank**0.5 if settings.get("use_rslora") else rank)
        shape = Shape(rank, scaling, targets)
        _check_factors(_checked_tensors(folder / WEIGHTS), shape)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"the adapter at {folder} cannot be served: {error}") from None
    return shape


def check_weights(folder: Path) -> None:
    """Raise UserError unless the folder's weights are whole, and every number in them is finite and below LIMIT."""
    try:
        _checked_tensors(folder / WEIGHTS)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"the adapter at {folder} cannot be served: {error}") from None


def _settings(folder: Path) -> dict[str, Any]:
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
    if (size := (folder / CONFIG).stat().st_size) > MAX_CONFIG_BYTES:
        raise ValueError(f"{CONFIG} has {size:,} bytes; more than {MAX_CONFIG_BYTES:,} is no configuration")
    try:
        settings = json.loads((folder / CONFIG).read_bytes())
    except ValueError as error:
        raise ValueError(f"{CONFIG} is not JSON: {error}") from None
    if not isinstance(settings, dict):
        raise ValueError(f"{CONFIG} is no JSON object")
    return settings


def _check_settings(settings: dict[str, Any]) -> None:
    rank: Any = settings.get("r")
    alpha: Any = settings.get("lora_alpha")
    targets: Any = settings.get("target_modules")
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"peft_type is {settings.get('peft_type')!r}, not 'LORA'")
    if type(rank) is not int or not 1 <= rank <= MAX_RANK:
        raise ValueError(f"r = {rank!r}; it must be a whole number from 1 to {MAX_RANK}")
    if type(alpha) not in (int, float) or not 0 < alpha < LIMIT:
        raise ValueError(f"lora_alpha = {alpha!r}; it must be a number above 0 and below {LIMIT}")
    if not isinstance(targets, list) or not targets or not all(isinstance(name, str) and name for name in targets):
        raise ValueError(
            f"target_modules = {targets!r:.200}; list the layers' names: a regular expression may take for ever, and "
            "vLLM does not read it"
        )
    if settings.get("bias", "none") != "none":
        raise ValueError(f"bias = {settings['bias']!r}; train with bias = 'none'")
    if settings.get("init_lora_weights", True) not in (True, False, "gaussian"):
        raise ValueError(f"init_lora_weights = {settings['init_lora_weights']!r} changes the base weights")
    if switched_on := sorted(key for key, value in settings.items() if value and key not in HARMLESS):
        raise ValueError(f"{', '.join(switched_on)} is set, which the server would refuse or ignore")


def _checked_tensors(path: Path) -> dict[str, Tensor]:
    """Return the header of a safetensors file after reading all of it. Raises ValueError for a fault."""
    with path.open("rb") as file:
        size = path.stat().st_size - 8
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size, MAX_HEADER_BYTES):
            raise ValueError(f"{path.name} cannot be read: a header of {length:,} bytes in a file of {size + 8:,}")
        try:
            header = json.loads(file.read(length))
            header.pop("__metadata__", None)
            tensors = {name: _tensor(entry) for name, entry in header.items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path.name} cannot be read: {error!r:.200}") from None
        position = 0
        for name, tensor in sorted(tensors.items(), key=lambda item: item[1].begin):
            if tensor.begin != position or tensor.end > size - length:
                raise ValueError(f"{path.name} cannot be read: {name} does not lie where it should")
            position = tensor.end
            if any(NUMBERS[tensor.dtype].spoil(chunk) for chunk in _chunks(file, tensor.end - tensor.begin)):
                raise ValueError(f"{name} has a number that is NaN, infinite, or {LIMIT} or more")
        if position != size - length:
            raise ValueError(f"{path.name} cannot be read: {size - length - position:,} bytes belong to no tensor")
    return tensors


def _tensor(entry: dict[str, Any]) -> Tensor:
    dtype, shape, (begin, end) = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
    if dtype not in NUMBERS:
        raise ValueError(f"numbers of type {dtype!r:.40}; known are {', '.join(NUMBERS)}")
    if not all(type(number) is int and number >= 0 for number in (*shape, begin, end)):
        raise ValueError(f"a shape of {shape} at {begin} to {end}")
    if end - begin != math.prod(shape) * NUMBERS[dtype].size:
        raise ValueError(f"{end - begin:,} bytes for a shape of {shape}")
    return Tensor(dtype, shape, begin, end)


def _chunks(file: IO[bytes], length: int) -> Iterator[bytes]:
    for begin in range(0, length, CHUNK_BYTES):
        yield file.read(min(CHUNK_BYTES, length - begin))


def _check_factors(tensors: dict[str, Tensor], shape: Shape) -> None:
    """Raise ValueError unless these are the factors of the layers that the configuration names, at its rank."""
    layers: dict[str, set[str]] = {}
    for name, tensor in tensors.items():
        layer, _, side = name.removeprefix(PREFIX).removesuffix(".weight").rpartition(".lora_")
        if not (name.startswith(PREFIX) and name.endswith(".weight") and side in ("A", "B") and layer):
            raise ValueError(f"{name} is no factor of a linear layer's update")
        if len(tensor.shape) != 2 or tensor.shape["AB".index(side)] != shape.rank:
            raise ValueError(f"{name} has the shape {tensor.shape}, which is not of rank {shape.rank} as r says")
        if not shape.includes(layer):
            raise ValueError(f"there is an update for {layer}, which target_modules do not name")
        layers.setdefault(layer, set()).add(side)
    if halves := sorted(layer for layer, sides in layers.items() if len(sides) < 2):
        raise ValueError(f"{halves[0]} has one factor of two")
    if idle := [name for name in shape.targets if not any(Shape(1, 1, (name,)).includes(layer) for layer in layers)]:
        raise ValueError(f"target_modules name {idle[0]}, for which there is no update")
