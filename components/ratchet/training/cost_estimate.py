"""Estimate a training before it runs: tokens, steps, how full the passes are, row lengths, memory."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ratchet.config import BaseModelSource, Config, Phase
from ratchet.training.batches import Layout, num_computed, plan
from ratchet.training.losses import CHUNK_TOKENS, effective_sample_size
from ratchet.training.tokenization import Selection, TokenizedRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# Adapter weights, gradients and AdamW's two moments, all in float32.
BYTES_PER_TRAINED = 4 * 4
NF4_BYTES = 0.516  # per weight: 4 bits, and its share of doubly quantised scales (arXiv:2305.14314, section 3)
# Hidden-wide and MLP-wide tensors that a layer keeps for its backward pass, counted on Llama with our LoRA layers.
KEPT_HIDDEN, KEPT_MLP = 14, 5


def estimate_cost(config: Config, phases: Mapping[str, Selection], layout: Layout) -> dict[str, Any]:
    """Return each phase's rows, tokens, steps, passes and lengths, and an estimate of the memory in MiB."""
    estimates = {}
    for name, selection in phases.items():
        if selection.rows:
            estimates[name] = _estimate_phase(selection.rows, getattr(config.train_adapter, name), config.seed, layout)
    return {"phases": estimates, "memory_mib": memory_mib(config)}


def _estimate_phase(rows: list[TokenizedRow], phase: Phase, seed: int, layout: Layout) -> dict[str, Any]:
    steps = plan(rows, batch_rows=phase.batch_rows, epochs=phase.epochs, seed=seed, layout=layout)
    passes = [[rows[index] for index in chosen] for step in steps for chosen in step]
    computed = 0  # tokens of all passes, with their padding
    for chosen in passes:
        sizes = [num_computed(row, layout.packing) for row in chosen]
        if layout.packing == "off":
            computed += max(sizes) * len(chosen)
        else:
            computed += -(-sum(sizes) // layout.multiple) * layout.multiple
    taken = [row for chosen in passes for row in chosen]
    return {
        "rows": len(rows),
        "effective_rows": round(effective_sample_size([row.weight for row in rows]), 1),
        "steps": len(steps),
        "passes": len(passes),
        "tokens": sum(row.num_distinct for row in taken),
        "computed_tokens": computed,
        "padded_tokens": sum(num_computed(row, "off") for row in taken),
        "occupancy": round(sum(row.num_distinct for row in taken) / (len(passes) * layout.pass_tokens), 3),
        "lengths": histogram([row.length for row in rows]),
    }


def histogram(lengths: list[int]) -> dict[str, int]:
    """Count the rows that are up to 16, 32, 64, … tokens long."""
    counts = Counter(max(4, (length - 1).bit_length()) for length in lengths)
    return {f"<= {2**bits}": counts[bits] for bits in sorted(counts)}


def memory_mib(config: Config) -> int:
    """Estimate MiB: base weights, the adapter with its optimiser state, and one pass's activations and logits."""
    from torch import nn

    settings, model = config.train_adapter, skeleton(config.base_model)
    width = 4 if config.base_model.dtype == "float32" else 2
    shape = model.config
    base = model.num_parameters() * width
    head = model.get_output_embeddings()
    linears = [layer for layer in model.modules() if isinstance(layer, nn.Linear) and layer is not head]
    if settings.quantize == "nf4":
        base -= int(sum(layer.weight.numel() for layer in linears) * (width - NF4_BYTES))
    trained = BYTES_PER_TRAINED * settings.lora.r * sum(layer.in_features + layer.out_features for layer in linears)
    kept = KEPT_HIDDEN * shape.hidden_size + KEPT_MLP * shape.intermediate_size
    if settings.device == "cpu":
        kept += shape.num_attention_heads * settings.max_tokens  # attention weights, at worst; FlexAttention keeps none
    activations = settings.pass_tokens * shape.num_hidden_layers * kept * width
    logits = 3 * CHUNK_TOKENS * shape.vocab_size * 4
    return int((base + trained + activations + logits) // 2**20)


def skeleton(source: BaseModelSource) -> "PreTrainedModel":
    """Return the base model without its weights, on the `meta` device."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from ratchet.base_model import base_folder

    shape = AutoConfig.from_pretrained(str(base_folder(source) or source.model), revision=source.revision)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(shape)
