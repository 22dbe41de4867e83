"""A model's numbers: log-probabilities of given answers, and greedy answers of its own.

One base model is loaded; the candidate and the incumbent are adapters on it, computed as they are served.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.inference.batching import GenerationRow as Answer
from ratchet.inference.batching import generate, stop_tokens
from ratchet.inference.lora import MultiLoraModel
from ratchet.training.tokenization import completion_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

BATCH_TOKENS = 1024  # a forward pass's padded size; more gains nothing on two cores and costs memory
VOCABULARY_ROWS = 256  # answer positions whose logits are held in fp32 at once
Messages = Sequence[Mapping[str, str]]
Advance = Callable[[int], None]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ScoringRow:
    """A prompt and the answers to it that are scored, as token ids; an answer ends with the end-of-turn token."""

    prompt: list[int]
    answers: tuple[list[int], ...]

    def __len__(self) -> int:
        return len(self.prompt) + sum(map(len, self.answers))


@dataclass(frozen=True)
class Answers:
    """What a model wrote in an exam.

    `sums`: of each row, the summed log-probability of each of its answers, in nats. `answers`: to each prompt; empty
    if it was not asked any.
    """

    sums: Sequence[Sequence[float]]
    answers: Sequence[str]


@dataclass
class Models:
    """The base model with its adapters, and the tokenizer."""

    lora: MultiLoraModel
    tokenizer: "PreTrainedTokenizerBase"


def load(config: Config, adapters: Mapping[str, Path]) -> Models:
    """The base model with every adapter in `adapters` (name to folder) attached. Raises UserError for a bad one."""
    import torch

    torch.set_num_threads(config.evaluate_adapter.threads)
    base, tokenizer = load_base(config.base_model)
    lora = MultiLoraModel(base.to(device=config.evaluate_adapter.device).eval())
    for name, folder in adapters.items():
        lora.load(folder, name)
    return Models(lora, tokenizer)


def encode(tokenizer: "PreTrainedTokenizerBase", messages: Messages, answers: Mapping[str, bool]) -> ScoringRow:
    """The row as it would be trained on and served: prompt and answers tokenised apart.

    `answers` says of each whether it came to its end of turn or was cut off by the length limit.
    """
    plain, prompt = [dict(message) for message in messages], prompt_text(tokenizer, messages)
    completions = tuple(completion_ids(tokenizer, plain, prompt, answer, ends=ends) for answer, ends in answers.items())
    return ScoringRow(list(tokenizer(prompt, add_special_tokens=False)["input_ids"]), completions)


def prompt_text(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def log_probs(models: Models, name: str | None, rows: Sequence[ScoringRow], advance: Advance) -> list[Floats]:
    """For each row, the summed log-probability of each of its answers given the prompt, in nats.

    `name` is that of an adapter, None for the base model alone.
    """
    import torch

    models.lora.choose([name])
    sums: list[Floats] = [np.zeros(0)] * len(rows)
    with torch.inference_mode():
        for batch in _batches(rows):
            for number, found in zip(batch, _score(models.lora.model, [rows[number] for number in batch]), strict=True):
                sums[number] = found
            advance(len(batch))
    return sums


def answers(models: Models, name: str | None, prompts: Sequence[Messages], max_new_tokens: int) -> list[str]:
    """The greedy answer to each prompt, up to its end of turn; other special tokens stay visible."""
    tokenizer = models.tokenizer
    ends = stop_tokens(models.lora.model, tokenizer)
    rows = [
        Answer(prompt=encode(tokenizer, messages, {}).prompt, max_tokens=max_new_tokens, adapter=name, temperature=0)
        for messages in prompts
    ]
    generate(models.lora, rows, ends)
    return [tokenizer.decode([token for token in row.tokens if token not in ends]).strip() for row in rows]


def _batches(rows: Sequence[ScoringRow]) -> Iterator[list[int]]:
    """Indices of rows of like length, so that little is padded; each batch holds BATCH_TOKENS with its padding."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number)):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _score(model: Any, rows: Sequence[ScoringRow]) -> Iterator[Floats]:
    """Each row's answers in one pass: they share the prompt's computation and do not see each other.

    The vocabulary projection, a fifth of a small model's work, runs only where an answer token is predicted.
    """
    import torch

    width = max(map(len, rows))
    ids, positions, segments = (
        torch.tensor(part, device=model.device) for part in zip(*(_lay_out(row, width) for row in rows), strict=True)
    )
    sees = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    sees &= torch.ones(width, width, dtype=torch.bool, device=model.device).tril()
    mask = torch.zeros(sees.shape, dtype=model.dtype, device=model.device).masked_fill(
        ~sees, torch.finfo(model.dtype).min
    )
    places = [number * width + place for number, row in enumerate(rows) for place in _predictors(row)]
    targets = torch.tensor([token for row in rows for answer in row.answers for token in answer], device=model.device)
    with _projecting_only(model, torch.tensor(places, device=model.device)):
        logits = model(input_ids=ids, position_ids=positions, attention_mask=mask[:, None], use_cache=False).logits[0]
    found = iter(_token_log_probs(logits, targets))
    for row in rows:
        yield np.array([sum(islice(found, len(answer))) for answer in row.answers])


def _lay_out(row: ScoringRow, width: int) -> tuple[list[int], list[int], list[int]]:
    """Ids, positions and segments (0 the prompt, 1, 2, … its answers, -1 padding) of prompt and answers in a line."""
    ids, positions, segments = list(row.prompt), list(range(len(row.prompt))), [0] * len(row.prompt)
    for segment, answer in enumerate(row.answers, start=1):
        ids += answer
        positions += range(len(row.prompt), len(row.prompt) + len(answer))
        segments += [segment] * len(answer)
    padding = width - len(ids)
    return ids + [0] * padding, positions + [0] * padding, segments + [-1] * padding


def _predictors(row: ScoringRow) -> Iterator[int]:
    """Where each answer token is predicted: at the prompt's last token, then at the answer's own."""
    start = len(row.prompt)
    for answer in row.answers:
        yield len(row.prompt) - 1
        yield from range(start, start + len(answer) - 1)
        start += len(answer)


def _token_log_probs(logits: "torch.Tensor", targets: "torch.Tensor") -> Floats:
    import torch

    parts = [
        -torch.nn.functional.cross_entropy(part.float(), target, reduction="none")
        for part, target in zip(
            torch.split(logits, VOCABULARY_ROWS), torch.split(targets, VOCABULARY_ROWS), strict=True
        )
    ]
    return np.asarray(torch.cat(parts).double().cpu().numpy())


@contextmanager
def _projecting_only(model: Any, places: "torch.Tensor") -> Iterator[None]:
    """Inside, the output layer sees these flat positions alone; what a model does to logits after it still happens."""
    hook = model.get_output_embeddings().register_forward_pre_hook(
        lambda module, inputs: (inputs[0].flatten(0, 1)[places].unsqueeze(0),)
    )
    try:
        yield
    finally:
        hook.remove()
