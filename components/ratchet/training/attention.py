"""Attention for training: every row of a packed line by itself, so that rows cost and see nothing of each other.

On a CPU the rows of a line are cut apart and each is multiplied out under its own small mask, which is the block-sparse
form of one large mask; on a GPU the same mask goes to FlexAttention, which skips the empty blocks. Both stand behind
transformers' registry of attention functions, so the model's own modules run unchanged.
"""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention, softmax

from ratchet.config import TrainAdapter
from ratchet.errors import UserError

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

NAME = "ratchet_rows"
PLAIN_TOKENS = 1024  # longer rows go to the fused kernel: plain products keep heads x tokens^2 numbers a layer
FLEX_TOKENS = 128  # FlexAttention's block; lines on a GPU are padded to whole blocks


def attend_by_row(model: "PreTrainedModel", settings: TrainAdapter) -> None:
    """Make the model's layers keep rows apart. Raises UserError for a model whose attention reaches less far."""
    from transformers import AttentionInterface

    window = getattr(model.config, "sliding_window", None)
    if window and getattr(model.config, "use_sliding_window", True) and window < settings.max_tokens:
        raise UserError(
            f"train_adapter.max_tokens = {settings.max_tokens}, but {type(model).__name__} attends to the last "
            f"{window} tokens only, which training does not reproduce; set it to {window} or less"
        )
    if settings.device == "cuda":
        model.set_attn_implementation("sdpa" if settings.packing == "off" else "flex_attention")
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
    """Attention of [lines, heads, tokens, size]: causal, or row by row under the masks `blocks`."""
    if not blocks:
        output = _rows(query, key, value, _causal(query), scaling)
    else:
        sizes = [len(mask) for mask in blocks]
        parts = zip(*(torch.split(part, sizes, dim=2) for part in (query, key, value)), blocks, strict=True)
        output = torch.cat([_rows(q, k, v, mask, scaling) for q, k, v, mask in parts], dim=2)
    return output.transpose(1, 2), None


def _rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float) -> Tensor:
    if query.shape[2] > PLAIN_TOKENS:
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True)
    lines, heads, tokens, size = query.shape
    groups = key.shape[1]  # heads that share a key are one tall product with it; nothing is repeated
    tall = (query * scaling).reshape(lines * groups, -1, size)
    scores = torch.bmm(tall, key.reshape(lines * groups, tokens, size).transpose(1, 2))
    shares = softmax(scores.view(-1, tokens, tokens).add_(mask), dim=-1).view_as(scores)
    return torch.bmm(shares, value.reshape(lines * groups, tokens, size)).view(lines, heads, tokens, size)


def _causal(query: Tensor) -> Tensor:
    tokens = query.shape[2]
    return additive(torch.ones(tokens, tokens, dtype=torch.bool, device=query.device).tril(), query.dtype)


def row_masks(segments: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Of each row, an additive mask [tokens, tokens]: prompt and own completion are seen, up to the token itself."""
    return [additive(((of == 0) | (of == of[:, None])).tril(), dtype) for of in segments]


def additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where a token is seen, minus infinity where it is not."""
    return torch.zeros_like(visible, dtype=dtype).masked_fill_(~visible, float("-inf"))


def flex_mask(segments: list[Tensor], num_tokens: int) -> "BlockMask":
    """The same rows along one line of `num_tokens` for FlexAttention; the padding behind them is a row of its own."""
    from torch.nn.attention.flex_attention import create_block_mask

    padding = torch.zeros(num_tokens - sum(map(len, segments)), dtype=torch.long, device=segments[0].device)
    parts = [*segments, padding]
    segment = torch.cat(parts)
    row = torch.cat([torch.full_like(part, number) for number, part in enumerate(parts)])

    def sees(batch: Tensor, head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (row[q] == row[k]) & (q >= k) & ((segment[k] == 0) | (segment[q] == segment[k]))

    return create_block_mask(sees, None, None, num_tokens, num_tokens, device=str(segment.device))
