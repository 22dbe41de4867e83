"""Merge trained adapters into one by PEFT's methods; the result is evaluated and gated like any candidate.

On over a thousand real adapters merging gained little over retraining (arXiv:2602.12323): let the gate decide.
"""

import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from ratchet.adapter_files import CARD, CONFIG, check_servable
from ratchet.base_model import revision
from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.manifest import Artifact, Manifest, StepOutput
from ratchet.step import Inputs, Step, StepResult, run_step
from ratchet.store import Store

# PEFT's methods that keep the rank. `svd` is exact up to that rank; `linear` sums the factors, which is approximate.
Method = Literal["svd", "linear", "ties", "ties_svd", "dare_linear", "dare_linear_svd", "dare_ties", "dare_ties_svd"]
METHODS = get_args(Method)
PRUNED_DENSITY = 0.5  # share of an adapter's entries that `ties` and `dare` keep, as in PEFT's guide


def merge(
    config: Config, adapters: Sequence[Manifest], weights: Sequence[float], method: str, store: Store
) -> StepResult:
    """Merge the adapters and publish the result under a manifest of `train_adapter`, or find it published.

    Raises UserError for fewer than two adapters, or if they differ in base model or rank.
    """
    if method not in METHODS:
        raise UserError(f"merge by {method!r}: no such method; known are {', '.join(METHODS)}")
    if len(adapters) < 2 or len(adapters) != len(weights):
        raise UserError(f"{len(adapters)} adapters and {len(weights)} weights; give two or more, and a weight for each")
    inputs = {f"adapter_{number}": manifest for number, manifest in enumerate(adapters, start=1)}
    recipe: dict[str, Any] = {"method": method, "weights": list(weights)}
    step = Step(
        name="train_adapter",
        run=lambda config, inputs, store: _run(config, inputs, store, recipe),
        inputs=tuple(inputs),
        reads=("seed", "base_model"),
        sources=lambda config, inputs, store: {"base": revision(config.base_model), "recipe": json.dumps(recipe)},
    )
    return run_step(step, config, inputs, store)


def _run(config: Config, inputs: Inputs, store: Store, recipe: dict[str, Any]) -> StepOutput:
    from ratchet.base_model import load_base
    from ratchet.training.adapter import card, write_folder

    artifacts = [manifest.outputs["adapter"] for manifest in inputs.values()]
    folders = [store.local(artifact.uri) for artifact in artifacts]
    rank = _common_rank(folders, revision(config.base_model))
    base, tokenizer = load_base(config.base_model)
    tensors, targets = _combine(base, folders, recipe, rank, config.seed)
    settings = {**json.loads((folders[0] / CONFIG).read_text()), "lora_alpha": rank, "target_modules": targets}
    origin = {
        **card(config, tokenizer, ""),
        "settings": recipe,
        "merged_from": [artifact.digest for artifact in artifacts],
    }
    del origin["dataset_digest"]
    with tempfile.TemporaryDirectory() as aside:
        write_folder(Path(aside), tensors, settings, origin)
        check_servable(Path(aside))
        tree = store.publish_tree(Path(aside), "adapters")
    merged = {artifact.digest: weight for artifact, weight in zip(artifacts, recipe["weights"], strict=True)}
    return StepOutput(
        outputs={"adapter": Artifact(uri=tree.uri, digest=tree.digest)},
        facts={"merged": merged, "method": recipe["method"]},
    )


def _common_rank(folders: Sequence[Path], base_revision: str) -> int:
    ranks = set()
    for folder in folders:
        check_servable(folder)
        settings = json.loads((folder / CONFIG).read_text())
        trained_on = json.loads((folder / CARD).read_text())["base_revision"]
        if trained_on != base_revision:
            raise UserError(
                f"the adapter at {folder} is for revision {trained_on} of the base model, and "
                f"base_model is at {base_revision}; merge adapters of one base model"
            )
        if settings.get("use_rslora"):
            raise UserError(
                f"the adapter at {folder} is rank-stabilised, and PEFT loses that scale in a merge; give others"
            )
        ranks.add(settings["r"])
    if len(ranks) > 1:
        raise UserError(f"the adapters' ranks are {sorted(ranks)}; PEFT's methods merge adapters of equal rank")
    return int(ranks.pop())


def _combine(
    base: Any, folders: Sequence[Path], recipe: dict[str, Any], rank: int, seed: int
) -> tuple[dict[str, Any], list[str]]:
    """Return the merged factors by PEFT's names, and the layers that they adapt."""
    import torch
    from peft import PeftModel, get_peft_model_state_dict

    names = [f"adapter_{number}" for number in range(len(folders))]
    model = PeftModel.from_pretrained(base, folders[0], adapter_name=names[0])
    for name, folder in zip(names[1:], folders[1:], strict=True):
        model.load_adapter(folder, name)
    torch.manual_seed(seed)  # `dare` drops entries at random
    is_pruned = recipe["method"].startswith(("ties", "dare"))
    model.base_model.add_weighted_adapter(
        names,
        recipe["weights"],
        "merged",
        combination_type=recipe["method"],
        svd_rank=rank,
        density=PRUNED_DENSITY if is_pruned else None,
    )
    return get_peft_model_state_dict(model, adapter_name="merged", save_embedding_layers=False), sorted(
        model.peft_config["merged"].target_modules
    )
