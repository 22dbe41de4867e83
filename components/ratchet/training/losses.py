"""Weighted losses on completion tokens: log-probabilities without a full logit table, SFT, DPO.

Every loss here is a sum over rows. The trainer divides by the mass of the whole optimiser step (weighted tokens for
SFT, weights for DPO), so that a row counts the same whatever micro-batch it falls into, and the scale of the weights
does not matter.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

CHUNK_TOKENS = 256  # 256 x 49k logits in float32 are 50 MB; larger chunks were no faster


def token_log_probs(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Log-probability of each target under `softmax(hidden @ head.T)`, in float32.

    Args:
        hidden: [n, width], the states that predict; gradients flow to it.
        head: [vocabulary, width], frozen.
        targets: [n] token ids.
    """
    log_probs: Tensor = _TokenLogProbs.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return log_probs


class _TokenLogProbs(torch.autograd.Function):
    """Takes the gradient with respect to `hidden` in the forward pass, while a chunk's logits are at hand.

    d logp_i / d hidden_i = head[target_i] - softmax_i @ head depends on nothing that comes later, so the backward
    pass only scales it, and no more than one chunk of logits ever exists.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        log_probs, slopes = [], []
        for states, wanted in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
            table = (states @ head.T).float()
            total = table.logsumexp(-1, keepdim=True)
            log_probs.append((table.gather(-1, wanted[:, None]) - total).squeeze(-1))
            if ctx.needs_input_grad[0]:
                slopes.append(head[wanted] - table.sub_(total).exp_().to(head.dtype) @ head)
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(log_probs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * grads[0].to(slopes.dtype)[:, None], None, None


def sft_loss(log_probs: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    """Sum over rows of weight x negative log-likelihood; `log_probs` holds each row's completion tokens."""
    return -(sequence_sums(log_probs) * weights).sum()


def dpo_loss(policy: Tensor, reference: Tensor, weights: Tensor, flips: Tensor, beta: float) -> Tensor:
    """Sum over pairs of w [(1 - e) l(beta D) + e l(-beta D)], l = -log sigmoid, D = policy's margin over reference's.

    DPO is arXiv:2305.18290, eq. 7; the flip probability `e` makes it conservative DPO.

    Args:
        policy: [pairs, 2] summed log-probabilities of (chosen, rejected).
        reference: the same under the frozen reference.
        weights: [pairs], how much each pair is trusted.
        flips: [pairs], how likely it is that the label is the wrong way round.
        beta: temperature.
    """
    margins = beta * (policy - reference).diff(dim=-1).neg().squeeze(-1)
    losses = (1 - flips) * logsigmoid(margins) + flips * logsigmoid(-margins)
    return -(weights * losses).sum()


def sequence_sums(log_probs: tuple[Tensor, ...]) -> Tensor:
    return torch.stack([part.sum() for part in log_probs])


def effective_sample_size(weights: list[float]) -> float:
    """Kish: how many equally weighted rows carry as much information."""
    squares = sum(weight**2 for weight in weights)
    return sum(weights) ** 2 / squares if squares else 0.0


def schedule(step: int, *, steps: int, warmup_steps: int) -> float:
    """Share of the peak learning rate at a step counted from 0: linear warm-up, then half a cosine; no step is idle."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
