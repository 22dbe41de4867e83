"""What the model in training thinks of completions: log-probabilities, now and as the frozen DPO reference."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from ratchet.digest import digest_bytes, digest_json, digest_members
from ratchet.errors import UserError
from ratchet.store import Store
from ratchet.training.attention import flex_mask, row_masks
from ratchet.training.batches import Layout, PackedBatch, collate
from ratchet.training.losses import sequence_sums, token_log_probs
from ratchet.training.tokenization import TokenizedRow

if TYPE_CHECKING:
    from peft import PeftModel


def completion_log_probs(model: "PeftModel", batch: PackedBatch) -> tuple[Tensor, ...]:
    """Log-probabilities of each completion's tokens; no table of all logits is made."""
    return log_probs_at(predicting_states(model, batch), model, batch)


def predicting_states(model: "PeftModel", batch: PackedBatch) -> Tensor:
    """[n, width], the hidden states that predict the completion tokens."""
    hidden: Tensor = (
        model.get_base_model()
        .get_decoder()(
            input_ids=batch["input_ids"],
            position_ids=batch["position_ids"],
            use_cache=False,
            **_attention(model, batch),
        )
        .last_hidden_state
    )
    return hidden.flatten(0, 1)[batch["predicts"]]


def log_probs_at(states: Tensor, model: "PeftModel", batch: PackedBatch) -> tuple[Tensor, ...]:
    return torch.split(token_log_probs(states, output_head(model), batch["targets"]), batch["lengths"])


def output_head(model: "PeftModel") -> Tensor:
    """The frozen [vocabulary, width] table that makes logits of states."""
    head: Tensor = model.get_base_model().get_output_embeddings().weight
    return head


def _attention(model: "PeftModel", batch: PackedBatch) -> dict[str, Any]:
    """What keeps the rows of a packed line apart, in the form that the model's attention takes."""
    if not batch["segments"]:
        return {}
    if model.device.type == "cuda":
        return {"attention_mask": flex_mask(batch["segments"], batch["input_ids"].shape[1])}
    return {"blocks": row_masks(batch["segments"], model.dtype)}


def with_reference(
    model: "PeftModel",
    rows: Sequence[TokenizedRow],
    *,
    together: Sequence[Sequence[int]],
    layout: Layout,
    store: Store,
    origin: Mapping[str, Any],
) -> list[TokenizedRow]:
    """The rows with the log-probabilities that `model`, as it is now, gives their completions.

    `together` are the forward passes, as row indices, best those of the training: other rows in a pass round a row's
    products otherwise, which in bfloat16 makes several nats of a long answer. Computed once for the same token ids,
    passes, layout and `origin`, what else the numbers depend on: the base model's revision, the threads. An adapter
    that is still zero does not count, so the base model's numbers serve every run.
    """
    from safetensors.torch import load, save

    tokens = [[row.prompt, row.completions] for row in rows]
    parts = [dict(origin), asdict(layout), _policy_digest(model), tokens, [list(chosen) for chosen in together]]
    key = f"references/{digest_json(parts)}.safetensors"
    if not store.exists(key):
        store.create_if_absent(key, save({"log_probs": reference_table(model, rows, together, layout)}))
    table = load(store.read(key))["log_probs"].tolist()
    return [replace(row, reference=tuple(pair)) for row, pair in zip(rows, table, strict=True)]


def _policy_digest(model: "PeftModel") -> str:
    factors = {name: weight for name, weight in model.named_parameters() if "lora_" in name}
    if not any(weight.any() for name, weight in factors.items() if "lora_B" in name):
        return "base"
    return digest_members(
        {name: digest_bytes(weight.detach().cpu().numpy().tobytes()) for name, weight in factors.items()}
    )


@torch.no_grad()
def reference_table(
    model: "PeftModel", rows: Sequence[TokenizedRow], together: Sequence[Sequence[int]], layout: Layout
) -> Tensor:
    """[rows, 2], the summed log-probability of each completion, in the passes `together`; NaN for rows in none."""
    model.eval()
    table = torch.full((len(rows), 2), torch.nan)
    for chosen in together:
        batch = to_device(collate([rows[index] for index in chosen], layout), model.device)
        table[chosen] = sequence_sums(completion_log_probs(model, batch)).view(-1, 2).cpu()
    return table


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    moved: Any = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    moved["segments"] = [segments.to(device) for segments in batch["segments"]]
    return cast(PackedBatch, moved)


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
