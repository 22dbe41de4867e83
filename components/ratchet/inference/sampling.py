"""Choose the next token of every row: biases, penalties and constraints change its logits, then one is drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ratchet.inference.batching import GenerationRow

TOP_K = 50  # sampling is limited to this many tokens: noise over the whole vocabulary costs more than the model


@dataclass(frozen=True)
class TokenLogprob:
    """The log-probability of a chosen token, and the likeliest tokens at its place with theirs."""

    token: int
    logprob: float
    likeliest: Sequence[tuple[int, float]]


def next_tokens(rows: Sequence["GenerationRow"], logits: Tensor) -> list[int]:
    """Return a token for each row; note its log-probability for rows that ask. Changes `logits` (rows, vocabulary)."""
    # The model's own, as OpenAI and vLLM give them: before penalties, constraints and temperature.
    logprobs = {index: logits[index].log_softmax(0) for index, row in enumerate(rows) if row.top_logprobs is not None}
    for index, row in enumerate(rows):
        if row.has_altered_logits:
            _alter(row, logits[index])
    values, candidates = logits.topk(TOP_K)
    for index, row in enumerate(rows):
        if row.top_p < 1 and row.temperature:
            _cut_tail(values[index], row)
    best = (values + torch.stack([_gumbel(row) for row in rows])).argmax(1, keepdim=True)
    tokens: list[int] = candidates.gather(1, best)[:, 0].tolist()
    for index, scores in logprobs.items():
        row, token = rows[index], tokens[index]
        likeliest = scores.topk(row.top_logprobs or 0)
        pairs = list(zip(likeliest.indices.tolist(), likeliest.values.tolist(), strict=True))
        row.logprobs.append(TokenLogprob(token, float(scores[token]), pairs))
    return tokens


def _alter(row: "GenerationRow", scores: Tensor) -> None:
    if row.frequency_penalty or row.presence_penalty:
        counts = torch.bincount(torch.tensor(row.tokens, dtype=torch.long), minlength=len(scores))
        scores -= row.frequency_penalty * counts + row.presence_penalty * (counts > 0)
    for token, bias in row.logit_bias.items():
        scores[token] += bias
    if row.constraint:
        scores[row.constraint.forbidden(len(scores))] = -torch.inf


def _cut_tail(values: Tensor, row: "GenerationRow") -> None:
    """Leave the fewest of the likeliest tokens that have the share `top_p` of the probability; `values` is sorted."""
    shares = (values / row.temperature).softmax(0)
    is_tail = shares.cumsum(0) - shares >= row.top_p
    is_tail[0] = False
    values[is_tail] = -torch.inf


def _gumbel(row: "GenerationRow") -> Tensor:
    """Return scaled noise whose sum with the logits has an exact sample as its argmax (Gumbel-max trick)."""
    if row.temperature == 0:
        return torch.zeros(TOP_K)
    noise = torch.empty(TOP_K, dtype=torch.float64).exponential_(generator=row.generator)
    return -row.temperature * noise.log_().float()
