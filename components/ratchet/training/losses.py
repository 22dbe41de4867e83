"""Weighted losses on completion tokens (SFT, DPO, IPO, KTO), and log-probabilities without a full logit table.

Every loss here is a sum over rows. The trainer divides by the mass of the whole optimiser step (weighted tokens for
SFT, rows for votes), so a row counts the same in any forward pass.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, logsigmoid

from ratchet.config import PairLoss

CHUNK_TOKENS = 256  # 256 x 49k logits in float32 are 50 MB; larger chunks were no faster


def token_log_probs(hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Return the log-probability of each target under `softmax(hidden @ head.T)`, [n] in float32.

    Args:
        hidden: [n, width], the states that predict; gradients flow to it.
        head: [vocabulary, width], frozen.
        targets: [n] token ids.
    """
    log_probs: Tensor = _TokenLogProbs.apply(hidden, head, targets)  # type: ignore[no-untyped-call]
    return log_probs


class _TokenLogProbs(torch.autograd.Function):
    """Computes the gradient with respect to `hidden` in the forward pass, while a chunk's logits exist.

    d logp_i / d hidden_i = head[target_i] - softmax_i @ head depends on no later value, so the backward pass only
    scales it, and no more than one chunk of logits exists at a time.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        log_probs, slopes = [], []
        for states, picks in zip(torch.split(hidden, CHUNK_TOKENS), torch.split(targets, CHUNK_TOKENS), strict=True):
            table = (states @ head.T).float()
            picked, peak = table.gather(-1, picks[:, None]), table.amax(-1, keepdim=True)
            total = table.sub_(peak).exp_().sum(-1, keepdim=True)  # in place: a table is far larger than the caches
            log_probs.append((picked - peak - total.log()).squeeze(-1))
            if ctx.needs_input_grad[0]:
                slopes.append(head[picks] - (table.to(head.dtype) @ head) / total.to(head.dtype))
        if slopes:
            ctx.save_for_backward(torch.cat(slopes))
        return torch.cat(log_probs)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return slopes * grads[0].to(slopes.dtype)[:, None], None, None


@torch.no_grad()
def mean_entropy(hidden: Tensor, head: Tensor) -> Tensor:
    """Return the mean entropy of the next token in nats, over [n, width] states."""
    log_probs = log_softmax((hidden @ head.T).float(), dim=-1)
    return -(log_probs.exp() * log_probs).sum(-1).mean()


def sft_loss(log_probs: tuple[Tensor, ...], weights: Tensor) -> Tensor:
    """Return the sum over rows of weight x negative log-likelihood; `log_probs` holds each row's completion tokens."""
    return -(sequence_sums(log_probs) * weights).sum()


def dpo_loss(margins: Tensor, weights: Tensor, flips: Tensor, kind: PairLoss, beta: float) -> Tensor:
    """Return the sum over pairs of w [(1 - e) l(D) + e l(-D)], with flip probability e and margin D (`pair_margins`).

    `sigmoid` is DPO, arXiv:2305.18290, eq. 7, with l(D) = -log sigmoid(beta D); `sigmoid_norm` the same on margins per
    token (Tulu 3, arXiv:2411.15124); `ipo` arXiv:2310.12036, eq. 17, with l(D) = (D - 1 / (2 beta))^2 on margins per
    token, as its authors confirmed to TRL. With flips, `sigmoid` is conservative DPO.

    Args:
        margins: [pairs]
        weights: [pairs], how much each pair is trusted.
        flips: [pairs], the probability that the label is reversed.
        kind: which l.
        beta: temperature; per token for all kinds but `sigmoid`, so not comparable between them.
    """

    def single(margin: Tensor) -> Tensor:
        return (margin - 1 / (2 * beta)).square() if kind == "ipo" else -logsigmoid(beta * margin)

    return (weights * ((1 - flips) * single(margins) + flips * single(-margins))).sum()


def pair_margins(log_probs: tuple[Tensor, ...], reference: Tensor, kind: PairLoss) -> Tensor:
    """Return [pairs], how much more the policy prefers the chosen than the reference does: sum or mean over tokens.

    `log_probs` holds each completion's tokens, chosen before rejected; `reference` is [pairs, 2], summed.
    """
    gains = sequence_sums(log_probs).view(-1, 2) - reference
    if kind != "sigmoid":
        gains = gains / gains.new_tensor([len(part) for part in log_probs]).view(-1, 2)
    return gains[:, 0] - gains[:, 1]


def kto_loss(gains: Tensor, drift: Tensor, labels: Tensor, weights: Tensor, beta: float) -> Tensor:
    """Return the sum over single votes of w [1 - sigmoid(beta y (gain - drift))], y = 1 or -1: arXiv:2402.01306, eq. 7.

    Args:
        gains: [rows], log-probability of the answer over the reference's.
        drift: scalar without gradient, how far the policy has moved from the reference (see `drift_estimate`).
        labels: [rows], 1 for liked and -1 for disliked.
        weights: [rows]
        beta: temperature.
    """
    return (weights * torch.sigmoid(-beta * labels * (gains - drift))).sum()


def drift_estimate(gains: Tensor) -> Tensor:
    """Return KTO's estimate (>= 0) of the policy's KL from the reference, from [rows] gains on other rows' answers."""
    return gains.detach().mean().clamp(min=0)


def sequence_sums(log_probs: tuple[Tensor, ...]) -> Tensor:
    """Return each completion's summed log-probability, [completions]."""
    return torch.stack([part.sum() for part in log_probs])


def normalized(weights: Sequence[float]) -> list[float]:
    """Scale weights to mean 1, so that a learning rate means the same for every dataset."""
    total = sum(weights)
    return [weight * len(weights) / total for weight in weights]


def effective_sample_size(weights: Sequence[float]) -> float:
    """Return Kish's effective sample size: the number of equally weighted rows with as much information."""
    squares = sum(weight**2 for weight in weights)
    return sum(weights) ** 2 / squares if squares else 0.0


def schedule(step: int, *, steps: int, warmup_steps: int) -> float:
    """Return the share of the peak learning rate at a step from 0: linear warm-up, then half a cosine; never 0."""
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    return 0.5 * (1 + math.cos(math.pi * progress))
