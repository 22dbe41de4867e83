"""Apply LoRA adapters to a batch, a different one or none for each row, with one low-rank product per layer.

The factors of all adapters in use are concatenated, and a mask empties the ranks of other rows' adapters. PEFT, the
tests' oracle, computes each adapter separately in float32; benchmarks/adapters.py compares both with the base model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import linear

from ratchet.adapter_files import PREFIX, WEIGHTS, Shape, check_servable
from ratchet.errors import UserError


@dataclass(frozen=True)
class Factors:
    """An update up' down' of one linear layer: `down` is (rank, in), `up` (rank, out) and already scaled."""

    down: Tensor
    up: Tensor


class MultiLoraModel:
    """A base model with the LoRA updates of the adapters chosen for its rows; for inference only.

    Not thread-safe, as the model is not.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._adapters: dict[str, dict[str, Factors]] = {}
        self._chosen: tuple[str | None, ...] = ()
        self._stacked: dict[str, Factors] = {}
        self._mask: Tensor | None = None
        self._linears = {name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear)}
        for name, layer in self._linears.items():
            layer.register_forward_hook(partial(self._add_update, name))

    def load(self, folder: Path, name: str) -> None:
        """Read an adapter folder in PEFT's format. Raises UserError if it does not fit this base model."""
        shape = check_servable(folder)
        try:
            tensors = load_file(folder / WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise UserError(f"the adapter at {folder} cannot be read: {error}") from None
        self._adapters[name] = self._factors(folder, tensors, shape)

    def updates(self, name: str, layer: nn.Module) -> bool:
        """Return whether the loaded adapter `name` has an update for this layer of the base model."""
        return any(self._linears[path] is layer for path in self._adapters[name])

    def unload(self, name: str) -> None:
        del self._adapters[name]
        self._chosen, self._stacked, self._mask = (), {}, None

    def choose(self, names: Sequence[str | None]) -> None:
        """Set each row's adapter for the next passes, None for the base model; a single name applies to every row."""
        chosen = tuple(names)
        if chosen == self._chosen:
            return
        used = sorted({name for name in chosen if name is not None})
        if used != sorted({name for name in self._chosen if name is not None}):
            self._stacked = self._stack(used)
        self._chosen = chosen
        owners = [name for name in used for _ in range(self._rank(name))]
        others = [[owner != name for owner in owners] for name in chosen]
        # (rows, 1, ranks): whether a rank belongs to another adapter than the row's own
        self._mask = torch.tensor(others, device=self.model.device)[:, None] if used else None

    def _factors(self, folder: Path, tensors: dict[str, Tensor], shape: Shape) -> dict[str, Factors]:
        factors = {}
        for layer, base in self._linears.items():
            down, up = (tensors.pop(f"{PREFIX}{layer}.lora_{side}.weight", None) for side in "AB")
            if down is not None and up is not None:
                _check_fit(folder, layer, base, (down, up))
                scaled = (up * shape.scaling).T.to(base.weight).contiguous()
                if not scaled.isfinite().all():
                    raise UserError(f"the adapter at {folder} is too large: {layer}'s update, scaled, is not finite")
                factors[layer] = Factors(down.to(base.weight), scaled)
        if tensors or not factors:
            raise UserError(
                f"the adapter at {folder} does not fit the base model: {len(tensors)} of its tensors have no layer "
                f"here, such as {min(tensors, default='none')}"
            )
        if missing := [layer for layer in self._linears if shape.includes(layer) and layer not in factors]:
            raise UserError(f"the adapter at {folder} has no update for {missing[0]}, which its target_modules name")
        return factors

    def _stack(self, used: Sequence[str]) -> dict[str, Factors]:
        """Concatenate the factors of these adapters; an adapter without an update for a layer has zeros there."""
        stacked = {}
        for layer in sorted({layer for name in used for layer in self._adapters[name]}):
            parts = [self._adapters[name].get(layer) or self._zeros(name, layer) for name in used]
            stacked[layer] = Factors(torch.cat([part.down for part in parts]), torch.cat([part.up for part in parts]))
        return stacked

    def _rank(self, name: str) -> int:
        return next(iter(self._adapters[name].values())).down.shape[0]

    def _zeros(self, name: str, layer: str) -> Factors:
        weight, rank = self._linears[layer].weight, self._rank(name)
        return Factors(weight.new_zeros(rank, weight.shape[1]), weight.new_zeros(rank, weight.shape[0]))

    def _add_update(self, name: str, layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        factors = self._stacked.get(name)
        if factors is None or self._mask is None:
            return
        # Filled, not multiplied: an adapter whose product overflows must not reach other rows as infinity times zero.
        narrow = linear(inputs[0], factors.down).masked_fill_(self._mask, 0)
        output.view(-1, output.shape[-1]).addmm_(narrow.view(-1, narrow.shape[-1]), factors.up)


def _check_fit(folder: Path, layer: str, base: nn.Linear, update: tuple[Tensor, Tensor]) -> None:
    height, width = base.weight.shape
    down, up = update
    if (down.shape[1], up.shape[0]) != (width, height):
        raise UserError(
            f"the adapter at {folder} does not fit the base model: {layer} takes {width} numbers and gives {height}; "
            f"its factors take {down.shape[1]} and give {up.shape[0]}"
        )
