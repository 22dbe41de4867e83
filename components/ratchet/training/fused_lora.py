"""Compute LoRA's linear layer as one autograd function: PEFT's mathematics without its copies.

PEFT casts the input to float32, multiplies twice, scales and adds, each into a new full-size tensor; on a CPU those
passes over memory cost more than the low-rank products. Here everything runs in the base weights' dtype, both products
accumulate in place, and nothing is kept for the frozen weight's gradient.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear


def fuse(model: nn.Module, adapter: str = "default") -> None:
    """Replace the forward pass of every PEFT LoRA layer over a plain `nn.Linear`, for good.

    Afterwards, switching or disabling adapters has no effect on the model. Dropout is not applied. Variants such as
    DoRA, and quantised layers, keep PEFT's forward pass.
    """
    from peft.tuners.lora import Linear

    for layer in model.modules():
        if isinstance(layer, Linear) and type(layer.base_layer) is nn.Linear and not layer.lora_variant:
            layer.forward = partial(_forward, layer, adapter)


def _forward(layer: Any, adapter: str, x: Tensor) -> Tensor:
    base = layer.base_layer
    down, up = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    output: Tensor = _LoraLinear.apply(  # type: ignore[no-untyped-call]
        x, base.weight, base.bias, down, up, layer.scaling[adapter]
    )
    return output


class _LoraLinear(torch.autograd.Function):
    """y = x W' + bias + scaling (x A') B', with W and bias frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        down, up = down.to(x.dtype), (up * scaling).to(x.dtype)
        narrow = rows @ down.T
        output = linear(rows, weight, bias).addmm_(narrow, up.T)
        ctx.save_for_backward(rows, weight, down, up, narrow)
        ctx.shape, ctx.scaling = x.shape, scaling
        return output.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight, down, up, narrow = ctx.saved_tensors
        grad = grads[0].reshape(-1, grads[0].shape[-1])
        narrow_grad = grad @ up
        # The first layer's input comes from frozen embeddings and needs no gradient.
        x_grad = (grad @ weight).addmm_(narrow_grad, down).view(ctx.shape) if ctx.needs_input_grad[0] else None
        down_grad = (narrow_grad.T @ rows).float()
        up_grad = (grad.T @ narrow).float() * ctx.scaling
        return x_grad, None, None, down_grad, up_grad, None
