"""Attention for packed lines: each row attends to itself only, so rows neither see nor cost each other.

On a CPU a line is split into its rows, and each is computed under its own small mask: the block-sparse form of one
large mask. On a GPU the same mask goes to FlexAttention, which skips the empty blocks. Both are called through
transformers' registry of attention functions, so the model's own modules run unchanged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, softmax

from ratchet.config import Packing, TrainAdapter
from ratchet.errors import UserError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

NAME = "ratchet_rows"
PLAIN_TOKENS = 1024  # longer rows go to the fused kernel: plain products keep heads x tokens^2 numbers a layer
FLEX_TOKENS = 128  # FlexAttention's block size; lines on a GPU are padded to whole blocks


def attend_by_row(model: "PreTrainedModel", settings: TrainAdapter) -> None:
    """Make the model's layers keep the rows of a packed line apart, for good.

    Raises UserError for a model whose sliding window is shorter than `settings.max_tokens`.
    """
    require_full_attention(model, settings.max_tokens, "train_adapter.max_tokens")
    _use_row_attention(model, settings.device, settings.packing)


@contextmanager
def attending_by_row(model: "PreTrainedModel") -> Iterator[None]:
    """Keep the rows of a packed line apart inside the block; the model's own attention is back afterwards."""
    before = model.config._attn_implementation
    _use_row_attention(model, model.device.type, "shared")
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def require_full_attention(model: "PreTrainedModel", max_tokens: int, setting: str) -> None:
    """Raise UserError, naming `setting`, if the model's sliding window is shorter than the longest row.

    Our masks let a token see its whole row; a model with a shorter window does not when it serves.
    """
    window = getattr(model.config, "sliding_window", None)
    if window and getattr(model.config, "use_sliding_window", True) and window < max_tokens:
        raise UserError(
            f"{setting} = {max_tokens}, but {type(model).__name__} attends to the last {window} tokens only, "
            f"which packed rows do not reproduce; set it to {window} or less"
        )


def line_multiple(device: str, packing: Packing) -> int:
    """Return the number of tokens that lines are padded to a multiple of."""
    return FLEX_TOKENS if device == "cuda" and packing != "off" else 1


def _use_row_attention(model: "PreTrainedModel", device: str, packing: Packing) -> None:
    from transformers import AttentionInterface

    if device == "cuda":
        model.set_attn_implementation("sdpa" if packing == "off" else "flex_attention")
    else:
        AttentionInterface.register(NAME, attend)
        model.set_attn_implementation(NAME)


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    blocks: list[Tensor] | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Compute attention over [lines, heads, tokens, size]: causal, or row by row under the masks `blocks`."""
    if not blocks:
        tokens = query.shape[2]
        causal = torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril()
        output = _attend(query, key, value, additive(causal, query.dtype), scaling)
    else:
        sizes = [len(mask) for mask in blocks]
        parts = zip(*(torch.split(part, sizes, dim=2) for part in (query, key, value)), blocks, strict=True)
        output = torch.cat([_attend(q, k, v, mask, scaling) for q, k, v, mask in parts], dim=2)
    return output.transpose(1, 2), None


def _attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    if query.shape[2] > PLAIN_TOKENS:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True)
    lines, heads, tokens, size = query.shape
    groups = key.shape[1]  # heads that share a key are one tall product with it: no key is repeated
    tall = (query * scaling).reshape(lines * groups, -1, size)
    scores = torch.bmm(tall, key.reshape(lines * groups, tokens, size).transpose(1, 2))
    shares = softmax(scores.view(-1, tokens, tokens).add_(mask), dim=-1).view_as(scores)
    return torch.bmm(shares, value.reshape(lines * groups, tokens, size)).view(lines, heads, tokens, size)


def row_masks(segments: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Return each row's additive mask [tokens, tokens]: a token sees prompt and own completion, up to itself."""
    return [additive(((row == 0) | (row == row[:, None])).tril(), dtype) for row in segments]


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a mask to add to the scores: 0 where a token is seen, minus infinity where it is not."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, float("-inf"))


def flex_mask(segments: list[Tensor], num_tokens: int) -> "BlockMask":
    """Return the same rows' mask for FlexAttention, in one line of `num_tokens`; the padding is one more row."""
    from torch.nn.attention.flex_attention import create_block_mask

    padding = torch.zeros(num_tokens - sum(map(len, segments)), dtype=torch.long, device=segments[0].device)
    parts = [*segments, padding]
    segment = torch.cat(parts)
    row = torch.cat([torch.full_like(part, number) for number, part in enumerate(parts)])

    def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (row[q] == row[k]) & (q >= k) & ((segment[k] == 0) | (segment[q] == segment[k]))

    return create_block_mask(sees, None, None, num_tokens, num_tokens, device=str(segment.device))
