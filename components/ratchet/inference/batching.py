"""Generate many answers at once, each with its own adapter, temperature, seed and length.

Rows join and leave between tokens (continuous batching), so a short answer never waits for a long one. The KV cache is
padded on the left; columns that no row uses any more are removed.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch.nn.functional import pad
from transformers import DynamicCache

from ratchet.inference.lora import MultiLoraModel
from ratchet.inference.prefix_cache import Prefixes
from ratchet.inference.sampling import TokenLogprob, next_tokens

if TYPE_CHECKING:
    from ratchet.inference.answer_text import AnswerText
    from ratchet.inference.constraints import Constraint

FinishReason = Literal["stop", "length", "abort"]


@dataclass(kw_only=True, eq=False)
class GenerationRow:
    """One answer while it is generated. `adapter` is a loaded one, None the base model; temperature 0 is greedy.

    `text` is kept where a client reads along or names stop texts, `logprobs` where `top_logprobs` is set. Times are
    `time.monotonic()`.
    """

    prompt: Sequence[int]
    max_tokens: int
    adapter: str | None = None
    temperature: float = 1.0
    seed: int = 0
    top_p: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    constraint: "Constraint | None" = None
    text: "AnswerText | None" = None
    top_logprobs: int | None = None
    logprobs: list[TokenLogprob] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    arrived_at: float = field(default_factory=time.monotonic)
    admitted_at: float = 0.0
    first_token_at: float = 0.0
    finished_at: float = 0.0

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    @property
    def has_altered_logits(self) -> bool:
        return bool(self.frequency_penalty or self.presence_penalty or self.logit_bias or self.constraint)

    def take(self, token: int, stop_tokens: frozenset[int]) -> None:
        """Add a token; the row is finished if it is a stop token, or completes a stop text or the grammar."""
        self.tokens.append(token)
        is_end = token in stop_tokens  # which neither the text nor the grammar has
        reason: FinishReason | None = "stop" if is_end or self._completes(token) else None
        if len(self.tokens) >= self.max_tokens:
            reason = reason or "length"
        if self.constraint and self.constraint.is_broken:
            reason = "length"
        if reason and self.text:
            self.text.finish(self.tokens[:-1] if is_end else self.tokens)
        # Last, since another thread may read the text as soon as there is a reason.
        self.finish_reason = self.finish_reason or reason

    def _completes(self, token: int) -> bool:
        has_stopped = self.text is not None and self.text.add(token)
        return (self.constraint is not None and self.constraint.add(token)) or has_stopped


class DecodingBatch:
    """The rows in flight over one KV cache. Not thread-safe: one thread owns it, and the model."""

    def __init__(self, lora: MultiLoraModel, stop_tokens: frozenset[int]) -> None:
        self.lora = lora
        self.stop_tokens = stop_tokens
        self.rows: list[GenerationRow] = []
        self._cache = DynamicCache()
        self._mask = torch.zeros(0, 0, dtype=torch.long)
        self._prefixes = Prefixes()

    @torch.inference_mode()
    def join(self, rows: Sequence[GenerationRow]) -> list[GenerationRow]:
        """Prefill the prompts of new rows and generate their first token; return the rows that it finishes."""
        for row in rows:
            row.admitted_at = time.monotonic()
        cache, shared = DynamicCache(), self._prefixes.length(rows)
        self._prefixes.fill(cache, rows, shared)
        rests = [list(row.prompt[shared:]) for row in rows]
        longest = max(map(len, rests))
        ids = torch.tensor([[0] * (longest - len(rest)) + rest for rest in rests])
        mask = torch.tensor([[1] * shared + [0] * (longest - len(rest)) + [1] * len(rest) for rest in rests])
        self._extend(rows, self._logits(rows, ids, mask, cache))
        self._prefixes.remember(rows, cache, mask)
        self._cache, self._mask = _stack(self._cache, self._mask, cache, mask) if self.rows else (cache, mask)
        self.rows = [*self.rows, *rows]
        return self._leave()

    def forget(self, adapter: str) -> None:
        """Free the cached prefix of an unloaded adapter; its name may then be used for another."""
        self._prefixes.forget(adapter)

    @torch.inference_mode()
    def step(self) -> list[GenerationRow]:
        """Generate one more token for every row; return the finished rows, which have left the batch."""
        ids = torch.tensor([[row.tokens[-1]] for row in self.rows])
        self._mask = pad(self._mask, (0, 1), value=1)
        self._extend(self.rows, self._logits(self.rows, ids, self._mask, self._cache))
        return self._leave()

    def _logits(
        self, rows: Sequence[GenerationRow], ids: torch.Tensor, mask: torch.Tensor, cache: DynamicCache
    ) -> torch.Tensor:
        self.lora.choose([row.adapter for row in rows])
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        # As a tensor: with `logits_to_keep=1` the last column is a strided view, for which torch's linear copies the
        # vocabulary matrix once per row (3.6 GB at 64 rows of the embedded model).
        last = torch.tensor([ids.shape[1] - 1])
        output = self.lora.model(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=last
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits

    def _extend(self, rows: Sequence[GenerationRow], logits: torch.Tensor) -> None:
        tokens = next_tokens(rows, logits)
        now = time.monotonic()
        for row, token in zip(rows, tokens, strict=True):
            row.first_token_at = row.first_token_at or now
            row.take(token, self.stop_tokens)

    def _leave(self) -> list[GenerationRow]:
        finished = [row for row in self.rows if row.finish_reason]
        for row in finished:
            row.finished_at = time.monotonic()
        if finished:
            kept = torch.tensor(
                [index for index, row in enumerate(self.rows) if not row.finish_reason], dtype=torch.long
            )
            self.rows = [row for row in self.rows if not row.finish_reason]
            self._mask = self._mask[kept]
            unused = int((self._mask.sum(0) == 0).int().cumprod(0).sum())
            self._mask = self._mask[:, unused:]
            for layer in self._cache.layers:
                layer.keys, layer.values = layer.keys[kept, :, unused:], layer.values[kept, :, unused:]
        return finished


def generate(
    lora: MultiLoraModel, rows: Sequence[GenerationRow], stop_tokens: frozenset[int], batch_rows: int = 64
) -> None:
    """Generate the tokens of all rows, at most `batch_rows` at a time."""
    batch, waiting = DecodingBatch(lora, stop_tokens), list(rows)
    while waiting or batch.rows:
        free = batch_rows - len(batch.rows)
        if waiting and free:
            batch.join(waiting[:free])
            del waiting[:free]
        if batch.rows:
            batch.step()


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """Return the tokens that end an answer, by the model's generation settings and the tokenizer."""
    configured = model.generation_config.eos_token_id
    listed = configured if isinstance(configured, list) else [configured]
    return frozenset(token for token in [*listed, tokenizer.eos_token_id] if token is not None)


def _stack(
    left: DynamicCache, left_mask: torch.Tensor, right: DynamicCache, right_mask: torch.Tensor
) -> tuple[DynamicCache, torch.Tensor]:
    """Concatenate two caches and their masks, the shorter one padded on the left."""
    width = max(left_mask.shape[1], right_mask.shape[1])
    lefts, rights = width - left_mask.shape[1], width - right_mask.shape[1]
    for layer, new in zip(left.layers, right.layers, strict=True):
        for name in ("keys", "values"):
            both = pad(getattr(layer, name), (0, 0, lefts, 0)), pad(getattr(new, name), (0, 0, rights, 0))
            setattr(layer, name, torch.cat(both))
    return left, torch.cat([pad(left_mask, (lefts, 0)), pad(right_mask, (rights, 0))])
