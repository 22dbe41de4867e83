"""Log-probabilities of completions: the one scorer of training, its frozen reference and the offline evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import torch
from torch import Tensor

from ratchet.adapter_ref import BASE_DIGEST
from ratchet.digest import digest_bytes, digest_json, digest_members
from ratchet.errors import UserError
from ratchet.store import Store
from ratchet.training.attention import flex_mask, row_masks
from ratchet.training.batches import Layout, PackedBatch, collate
from ratchet.training.losses import sequence_sums, token_log_probs
from ratchet.training.tokenization import TokenizedRow

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    Model: TypeAlias = PeftModel | PreTrainedModel
    """A causal language model, with or without PEFT's wrapper; for packed lines it attends by row (see `attention`)."""


@torch.no_grad()
def score_pass(model: "Model", rows: Sequence[TokenizedRow], layout: Layout) -> list[Tensor]:
    """Return each row's [completions] summed log-probabilities given its prompt, in nats, from one forward pass.

    float32 on the CPU. The model must be in evaluation mode. In bfloat16 the other rows of the pass change the
    rounding of a row's products, and so its sums.
    """
    batch = to_device(collate(rows, layout), model.device)
    sums = sequence_sums(completion_log_probs(model, batch)).cpu()
    return list(torch.split(sums, [len(row.completions) for row in rows]))


def completion_log_probs(model: "Model", batch: PackedBatch) -> tuple[Tensor, ...]:
    """Return the log-probabilities of each completion's tokens, without building the full table of logits."""
    return log_probs_at(predicting_states(model, batch), model, batch)


def predicting_states(model: "Model", batch: PackedBatch) -> Tensor:
    """Return the [n, width] hidden states that predict the completion tokens."""
    output = _base_of(model).get_decoder()(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        use_cache=False,
        **_attention_mask(model, batch),
    )
    hidden: Tensor = output.last_hidden_state
    return hidden.flatten(0, 1)[batch["predicts"]]


def log_probs_at(states: Tensor, model: "Model", batch: PackedBatch) -> tuple[Tensor, ...]:
    """Return the log-probabilities of each completion's tokens, given the states that predict them."""
    return torch.split(token_log_probs(states, output_head(model), batch["targets"]), batch["lengths"])


def output_head(model: "Model") -> Tensor:
    """Return the frozen [vocabulary, width] matrix that turns states into logits."""
    head: Tensor = _base_of(model).get_output_embeddings().weight
    return head


def _base_of(model: "Model") -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _attention_mask(model: "Model", batch: PackedBatch) -> dict[str, Any]:
    """Return the argument that keeps the rows of a packed line apart, in the form that the model's attention takes."""
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
    """Return the rows with the log-probabilities that `model`, in its present state, gives their completions.

    `together` are the forward passes as row indices; pass those of the training, because in bfloat16 the other rows of
    a pass change a row's rounding by several nats for a long answer. The numbers are cached in the lake under the token
    ids, passes, layout and `origin`: everything else that they depend on (base model revision, threads). An adapter
    that is still zero does not enter the key, so every run shares the base model's numbers.
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
        return BASE_DIGEST
    return digest_members(
        {name: digest_bytes(weight.detach().cpu().numpy().tobytes()) for name, weight in factors.items()}
    )


def reference_table(
    model: "PeftModel", rows: Sequence[TokenizedRow], together: Sequence[Sequence[int]], layout: Layout
) -> Tensor:
    """Return [rows, 2], each completion's summed log-probability in the passes `together`; NaN for a row in no pass."""
    model.eval()
    table = torch.full((len(rows), 2), torch.nan)
    for chosen in together:
        table[chosen] = torch.stack(score_pass(model, [rows[index] for index in chosen], layout))
    return table


def to_device(batch: PackedBatch, device: torch.device) -> PackedBatch:
    """Return the batch with its tensors on `device`."""
    moved: Any = {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
    moved["segments"] = [segments.to(device) for segments in batch["segments"]]
    return cast(PackedBatch, moved)


def require_plain_head(model: "Model") -> None:
    """Raise UserError if logits are more than `hidden @ head.T`: a capped or scaled head would be scored wrongly."""
    ids = torch.arange(1, 9, device=model.device)[None]
    base = _base_of(model)
    with torch.no_grad():
        hidden = base.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state
        plain = hidden @ base.get_output_embeddings().weight.T
        logits = base(input_ids=ids, use_cache=False).logits
    if not torch.allclose(plain, logits, rtol=1e-2, atol=1e-2):
        raise UserError(
            f"{type(base).__name__} caps or scales its logits, which neither training nor evaluation supports; "
            "choose a base model with a plain output head, such as Llama, Qwen, Mistral or SmolLM"
        )
