"""Score a model: log-probabilities of given answers, and its own greedy answers.

One base model is loaded; candidate and incumbent are adapters on it, computed as they are served. The
log-probabilities come from the training's scorer (`training.log_probs.score_pass`), so the two cannot drift apart.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.inference.batching import GenerationRow, generate, stop_tokens
from ratchet.inference.lora import MultiLoraModel
from ratchet.training.attention import attending_by_row, line_multiple, require_full_attention
from ratchet.training.batches import Layout, passes
from ratchet.training.log_probs import require_plain_head, score_pass
from ratchet.training.tokenization import TokenizedRow, completion_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PASS_TOKENS = 1024  # tokens of a forward pass; more gains nothing on two cores and costs memory
Messages = Sequence[Mapping[str, str]]
Advance = Callable[[int], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answers:
    """A model's results on an evaluation set.

    `sums`: for each row, the summed log-probability of each of its answers, in nats. `answers`: the model's own answer
    to each prompt; empty if it was not asked for any.
    """

    sums: Sequence[Sequence[float]]
    answers: Sequence[str]


@dataclass
class Models:
    """The base model with its adapters, and the tokenizer."""

    lora: MultiLoraModel
    tokenizer: "PreTrainedTokenizerBase"


def load(config: Config, adapters: Mapping[str, Path]) -> Models:
    """Load the base model and attach every adapter in `adapters` (name to folder).

    Raises UserError for an adapter that cannot be served, or a model or adapter that training's scorer would score
    wrongly: a short sliding window, logits that are capped or scaled, an update of the output head.
    """
    settings = config.evaluate_adapter
    torch.set_num_threads(settings.threads)
    base, tokenizer = load_base(config.base_model)
    model = base.to(device=settings.device).eval()
    require_full_attention(model, settings.max_tokens, "evaluate_adapter.max_tokens")
    require_plain_head(model)
    lora = MultiLoraModel(model)
    for name, folder in adapters.items():
        lora.load(folder, name)
        if lora.updates(name, model.get_output_embeddings()):
            raise UserError(
                f"the adapter at {folder} updates the output head, which the evaluation scores frozen; "
                "train it without the head in target_modules"
            )
    return Models(lora, tokenizer)


def encode(tokenizer: "PreTrainedTokenizerBase", messages: Messages, answers: Mapping[str, bool]) -> TokenizedRow:
    """Tokenise a prompt and its answers apart, as in training and serving.

    `answers` maps each answer to whether it reached its end of turn (false: the length limit cut it off).
    """
    plain, prompt = [dict(message) for message in messages], prompt_text(tokenizer, messages)
    completions = tuple(completion_ids(tokenizer, plain, prompt, answer, ends=ends) for answer, ends in answers.items())
    ids = list(tokenizer(prompt, add_special_tokens=False)["input_ids"])
    return TokenizedRow(prompt=ids, completions=completions, weight=1.0)


def prompt_text(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def log_probs(models: Models, name: str | None, rows: Sequence[TokenizedRow], advance: Advance) -> list[Floats]:
    """Return, for each row, the summed log-probability of each of its answers given the prompt, in nats.

    `name` is an adapter's, None for the base model alone.
    """
    model = models.lora.model
    models.lora.choose([name])
    layout = Layout(
        packing="shared", pass_tokens=PASS_TOKENS, pad_id=0, multiple=line_multiple(model.device.type, "shared")
    )
    sums: list[Floats] = [np.zeros(0)] * len(rows)
    with attending_by_row(model):
        for chosen in passes(rows, layout):
            scored = score_pass(model, [rows[index] for index in chosen], layout)
            for index, row_sums in zip(chosen, scored, strict=True):
                sums[index] = row_sums.double().numpy()
            advance(len(chosen))
    return sums


def answers(models: Models, name: str | None, prompts: Sequence[Messages], max_new_tokens: int) -> list[str]:
    """Return the greedy answer to each prompt, up to its end of turn; other special tokens stay visible."""
    tokenizer = models.tokenizer
    ends = stop_tokens(models.lora.model, tokenizer)
    rows = [
        GenerationRow(
            prompt=encode(tokenizer, messages, {}).prompt, max_tokens=max_new_tokens, adapter=name, temperature=0
        )
        for messages in prompts
    ]
    generate(models.lora, rows, ends)
    return [tokenizer.decode([token for token in row.tokens if token not in ends]).strip() for row in rows]
