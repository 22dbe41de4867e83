"""A model's numbers: log-probabilities of given answers, and greedy answers of its own.

One base model is loaded; the candidate and the incumbent are adapters on it, switched in place.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

BASE = "base"
BATCH_TOKENS = 1024  # a forward pass's padded size; more gains nothing on two cores and costs memory
VOCABULARY_ROWS = 256  # answer positions whose logits are held in fp32 at once
Messages = Sequence[Mapping[str, str]]
Advance = Callable[[int], None]


@dataclass(frozen=True)
class Row:
    """A prompt and an answer as token ids; the answer ends with the end-of-turn token."""

    prompt: list[int]
    answer: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.answer)


@dataclass
class Models:
    """The base model with its adapters, and the tokenizer."""

    model: Any
    tokenizer: "PreTrainedTokenizerBase"

    @contextmanager
    def serving(self, name: str) -> Iterator[Any]:
        """The model as it answers with the adapter `name`, or with none (`BASE`)."""
        if name == BASE:
            with self.model.disable_adapter():
                yield self.model
        else:
            self.model.set_adapter(name)
            yield self.model


def load(config: Config, adapters: Mapping[str, Path]) -> Models:
    """The base model with every adapter in `adapters` (name to folder) attached. Raises UserError for a bad one."""
    import torch
    from peft import PeftModel

    torch.set_num_threads(config.evaluate_adapter.threads)
    base, tokenizer = load_base(config.base_model)
    model: Any = base
    for name, folder in adapters.items():
        if not (folder / "adapter_model.safetensors").is_file():
            raise UserError(f"{folder} holds no adapter_model.safetensors; other formats are not loaded")
        if isinstance(model, PeftModel):
            model.load_adapter(str(folder), adapter_name=name)
        else:
            model = PeftModel.from_pretrained(model, str(folder), adapter_name=name)
    # PEFT keeps adapters in fp32; servers run them in the base model's type, which is also twice as fast here.
    return Models(model.to(device=config.evaluate_adapter.device, dtype=base.dtype).eval(), tokenizer)


def encode(tokenizer: "PreTrainedTokenizerBase", messages: Messages, answer: str) -> Row:
    """The row as the chat template writes it. Prompt and answer are tokenised apart, as when serving."""
    prompt = prompt_text(tokenizer, messages)
    whole = tokenizer.apply_chat_template([*messages, {"role": "assistant", "content": answer}], tokenize=False)
    ends = whole.removeprefix(prompt).rstrip() if whole.startswith(prompt) else answer + str(tokenizer.eos_token)
    return Row(_ids(tokenizer, prompt), _ids(tokenizer, ends))


def prompt_text(tokenizer: "PreTrainedTokenizerBase", messages: Messages) -> str:
    return str(tokenizer.apply_chat_template(list(messages), tokenize=False, add_generation_prompt=True))


def log_probs(model: Any, rows: Sequence[Row], advance: Advance) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Summed log-probability of each row's answer given its prompt, in nats."""
    import torch

    sums = np.zeros(len(rows))
    with torch.inference_mode():
        for batch in _batches(rows):
            found = _answer_log_probs(model, [rows[number] for number in batch])
            starts = np.cumsum([0, *(len(rows[number].answer) for number in batch[:-1])])
            sums[batch] = np.add.reduceat(found, starts)
            advance(len(batch))
    return sums


def generate(models: Models, model: Any, prompts: Sequence[Messages], max_new_tokens: int) -> list[str]:
    """The greedy answer to each prompt, up to its end of turn; other special tokens stay visible."""
    import torch

    tokenizer = models.tokenizer
    texts = [prompt_text(tokenizer, messages) for messages in prompts]
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False).to(model.device)
    with torch.inference_mode():
        outputs = model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=tokenizer.pad_token_id
        )
    ends = {tokenizer.eos_token_id, *np.atleast_1d(model.generation_config.eos_token_id)}
    return [
        tokenizer.decode(_until(answer, ends)).strip() for answer in outputs[:, inputs["input_ids"].shape[1] :].tolist()
    ]


def _until(ids: list[int], ends: set[int]) -> list[int]:
    stop = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    return ids[:stop]


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _batches(rows: Sequence[Row]) -> Iterator[list[int]]:
    """Indices of rows of like length, so that little is padded; each batch holds BATCH_TOKENS with its padding."""
    batch: list[int] = []
    for number in sorted(range(len(rows)), key=lambda number: (-len(rows[number]), number)):
        if batch and (len(batch) + 1) * len(rows[batch[0]]) > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _answer_log_probs(model: Any, rows: Sequence[Row]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Log-probability of every answer token, row after row.

    Padding is on the right, where a causal model cannot see it, so no mask is needed. The vocabulary projection, a
    fifth of a small model's work, runs on answer positions alone.
    """
    import torch

    width = max(len(row) for row in rows)
    ids = torch.tensor([[*row.prompt, *row.answer, *[0] * (width - len(row))] for row in rows], device=model.device)
    places = torch.tensor(
        [
            number * width + place
            for number, row in enumerate(rows)
            for place in range(len(row.prompt) - 1, len(row) - 1)
        ],
        device=model.device,
    )
    with _projecting_only(model, places):
        logits = model(input_ids=ids, use_cache=False).logits[0]
    targets = ids.flatten()[places + 1]
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
