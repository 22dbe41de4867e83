"""What the model in training thinks of completions: log-probabilities, now and as the frozen DPO reference."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ratchet.errors import UserError
from ratchet.training.batches import Batch, Row, collate
from ratchet.training.losses import sequence_sums, token_log_probs

if TYPE_CHECKING:
    from peft import PeftModel


def completion_log_probs(model: "PeftModel", batch: Batch) -> tuple[Tensor, ...]:
    """Log-probabilities of each sequence's completion tokens; logits are made nowhere else."""
    base = model.get_base_model()
    hidden = base.get_decoder()(input_ids=batch["input_ids"], use_cache=False).last_hidden_state
    head = base.get_output_embeddings().weight
    log_probs = token_log_probs(hidden[batch["predicts"]], head, batch["targets"])
    return torch.split(log_probs, batch["lengths"])


def with_reference(model: "PeftModel", rows: Sequence[Row], *, cache: Path, pad_id: int, micro_rows: int) -> list[Row]:
    """The rows with the log-probabilities that `model`, as it is now, gives their completions; kept in `cache`."""
    from safetensors.torch import load_file, save_file

    if not cache.exists():
        table = _reference_table(model, rows, pad_id, micro_rows)
        aside = cache.with_suffix(".aside")
        save_file({"log_probs": table}, aside)
        aside.replace(cache)
    table = load_file(cache)["log_probs"]
    return [replace(row, reference=tuple(pair)) for row, pair in zip(rows, table.tolist(), strict=True)]


@torch.no_grad()
def _reference_table(model: "PeftModel", rows: Sequence[Row], pad_id: int, micro_rows: int) -> Tensor:
    model.eval()
    order = sorted(range(len(rows)), key=lambda index: (-rows[index].length, index))
    table = torch.empty(len(rows), 2)
    for start in range(0, len(order), micro_rows):
        chunk = order[start : start + micro_rows]
        batch = collate([rows[index] for index in chunk], pad_id)
        moved: Any = {
            name: value.to(model.device) if isinstance(value, Tensor) else value for name, value in batch.items()
        }
        table[chunk] = sequence_sums(completion_log_probs(model, moved)).view(-1, 2).cpu()
    return table


def require_plain_head(model: "PeftModel") -> None:
    """Raise UserError where logits are more than `hidden @ head.T`: capped or scaled heads would be trained wrongly."""
    ids = torch.arange(1, 9, device=model.device)[None]
    base = model.get_base_model()
    with torch.no_grad():
        hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        plain = hidden @ base.get_output_embeddings().weight.T
        logits = base(input_ids=ids, use_cache=False).logits
    if not torch.allclose(plain, logits, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"{type(base).__name__} caps or scales its logits, which training does not support; "
            "choose a base model with a plain output head, such as Llama, Qwen, Mistral or SmolLM"
        )
