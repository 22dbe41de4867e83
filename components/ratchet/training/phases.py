"""Read the rows of each training phase, and run the phases in their order."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.base_model import revision
from ratchet.config import Config, Phase, TrainAdapter
from ratchet.manifest import Artifact
from ratchet.store import Store

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from ratchet.training.batches import Layout
    from ratchet.training.tokenization import Selection


@dataclass(frozen=True)
class Training:
    """One training: its settings, its dataset, and where its unfinished work is kept in the lake (`work`, a key)."""

    config: Config
    store: Store
    dataset: Artifact
    work: str


def read_phases(config: Config, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> dict[str, "Selection"]:
    """Return the train split's rows for each phase, in the order of training; weights are scaled to mean 1."""
    import polars as pl

    from ratchet.training.losses import normalized
    from ratchet.training.tokenization import dpo_rows, hold_out, kto_rows, select, sft_rows

    settings = config.train_adapter
    phases = {}
    for name, encode in (("sft", sft_rows), ("dpo", dpo_rows), ("kto", kto_rows)):
        phase: Phase = getattr(settings, name)
        if name == "kto" and not phase.epochs:
            continue
        table = pl.read_parquet(folder / f"{name}-train.parquet").iter_rows(named=True)
        max_rows = phase.max_rows if phase.epochs else 0
        selection = select(
            encode(table, tokenizer),
            max_tokens=settings.max_tokens,
            max_rows=max_rows,
            replay_share=phase.replay_share,
            seed=config.seed,
        )
        if name == "dpo":
            selection = hold_out(selection, settings.dpo.stop.share, config.seed)
        weights = normalized([row.weight for row in selection.rows])
        rows = [replace(row, weight=weight) for row, weight in zip(selection.rows, weights, strict=True)]
        phases[name] = replace(selection, rows=rows)
    return phases


def layout_of(settings: TrainAdapter, tokenizer: "PreTrainedTokenizerBase") -> "Layout":
    """Return how these settings lay rows out on their device."""
    from ratchet.training.attention import line_multiple
    from ratchet.training.batches import Layout

    return Layout(
        packing=settings.packing,
        pass_tokens=settings.pass_tokens,
        pad_id=int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id),
        multiple=line_multiple(settings.device, settings.packing),
    )


def run_phases(
    training: Training,
    model: "PeftModel",
    phases: dict[str, "Selection"],
    layout: "Layout",
    callbacks: Callable[[str], list["TrainerCallback"]],
) -> list[dict[str, Any]]:
    """Train `model` in place; return the curves of all phases. `callbacks` makes those of the phase it is given."""
    from ratchet.training.batches import first_passes, plan
    from ratchet.training.checkpoints import CheckpointFolder
    from ratchet.training.distributed import first_goes_first
    from ratchet.training.early_stop import EarlyStopCallback
    from ratchet.training.log_probs import with_reference
    from ratchet.training.objectives import dpo_objective, kto_objective, sft_objective
    from ratchet.training.trainer import PhaseRun, train_phase

    config, store, settings = training.config, training.store, training.config.train_adapter
    objectives = {
        "sft": sft_objective(),
        "dpo": dpo_objective(settings.loss, settings.beta),
        "kto": kto_objective(settings.beta),
    }
    history: list[dict[str, Any]] = []
    for name, selection in phases.items():
        if not selection.rows:
            continue
        rows, phase = selection.rows, getattr(settings, name)
        place = CheckpointFolder(store, f"{training.work}/{name}")
        steps = plan(rows, batch_rows=phase.batch_rows, epochs=phase.epochs, seed=config.seed, layout=layout)
        if name != "sft":
            together, origin = first_passes(steps), _reference_origin(config)
            with first_goes_first():
                rows = with_reference(model, rows, together=together, layout=layout, store=store, origin=origin)
        run = PhaseRun(
            rows=rows,
            steps=steps,
            layout=layout,
            objective=objectives[name],
            phase=phase,
            place=place,
            seed=config.seed,
            checkpoint_steps=settings.checkpoint_steps,
            device=settings.device,
        )
        held_out, stop = selection.watched, settings.dpo.stop
        early_stop = EarlyStopCallback(model, held_out, stop, place=place, layout=layout) if held_out else None
        curve = train_phase(model, run, callbacks(name), early_stop)
        history += [{"phase": name, **entry} for entry in curve]
    return history


def _reference_origin(config: Config) -> dict[str, Any]:
    """Return what the reference depends on besides the tokens, their layout and the adapter."""
    base, settings = config.base_model, config.train_adapter
    return {
        "base": revision(base),
        "dtype": base.dtype,
        "device": settings.device,
        "threads": settings.threads,
        "scale": settings.lora.model_dump(),
        "quantize": settings.quantize,
    }
