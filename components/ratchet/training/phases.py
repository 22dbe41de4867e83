"""The phases of a training in their order: which rows each is trained on, and how."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.base_model import revision
from ratchet.config import Config, Phase, TrainAdapter
from ratchet.store import Store

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from ratchet.training.batches import Layout
    from ratchet.training.tokenization import Selection


def read_phases(config: Config, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> dict[str, "Selection"]:
    """The rows of the train split that each phase will be trained on, in the order of training; weights of mean 1."""
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
    from ratchet.training.attention import FLEX_TOKENS
    from ratchet.training.batches import Layout

    is_flex = settings.device == "cuda" and settings.packing != "off"
    return Layout(
        packing=settings.packing,
        pass_tokens=settings.pass_tokens,
        pad_id=int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id),
        multiple=FLEX_TOKENS if is_flex else 1,
    )


def run_phases(
    config: Config,
    store: Store,
    work: str,
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    phases: dict[str, "Selection"],
    callbacks: Callable[[str], list["TrainerCallback"]],
) -> list[dict[str, Any]]:
    """Train `model` in place; the curves of all phases."""
    from ratchet.training.batches import first_passes, plan
    from ratchet.training.checkpoints import CheckpointFolder
    from ratchet.training.distributed import first_goes_first
    from ratchet.training.early_stop import EarlyStopCallback
    from ratchet.training.log_probs import with_reference
    from ratchet.training.objectives import dpo_objective, kto_objective, sft_objective
    from ratchet.training.trainer import train_phase

    settings = config.train_adapter
    layout = layout_of(settings, tokenizer)
    objectives = {
        "sft": sft_objective(),
        "dpo": dpo_objective(settings.loss, settings.beta),
        "kto": kto_objective(settings.beta),
    }
    history: list[dict[str, Any]] = []
    for name, selection in phases.items():
        if not selection.rows:
            continue
        rows, place, phase = selection.rows, CheckpointFolder(store, f"{work}/{name}"), getattr(settings, name)
        steps = plan(rows, batch_rows=phase.batch_rows, epochs=phase.epochs, seed=config.seed, layout=layout)
        if name != "sft":
            together, origin = first_passes(steps), _origin(config)
            with first_goes_first():
                rows = with_reference(model, rows, together=together, layout=layout, store=store, origin=origin)
        watched = selection.watched
        curve = train_phase(
            model,
            rows,
            objectives[name],
            phase,
            steps=steps,
            place=place,
            layout=layout,
            seed=config.seed,
            checkpoint_steps=settings.checkpoint_steps,
            device=settings.device,
            callbacks=callbacks(name),
            watch=EarlyStopCallback(model, watched, settings.dpo.stop, place=place, layout=layout) if watched else None,
        )
        history += [{"phase": name, **entry} for entry in curve]
    return history


def _origin(config: Config) -> dict[str, Any]:
    """What log-probabilities depend on besides the tokens, their layout and the adapter."""
    base, settings = config.base_model, config.train_adapter
    return {
        "base": revision(base),
        "dtype": base.dtype,
        "device": settings.device,
        "threads": settings.threads,
        "scale": settings.lora.model_dump(),
        "quantize": settings.quantize,
    }
