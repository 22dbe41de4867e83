"""One phase of training, SFT or DPO: our rows, losses and plan under `transformers.Trainer`'s loop and checkpoints."""

import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ratchet.config import Phase
from ratchet.training.batches import Batch, Row, collate, plan
from ratchet.training.losses import dpo_loss, schedule, sequence_sums, sft_loss
from ratchet.training.policy import completion_log_probs

if TYPE_CHECKING:
    from peft import PeftModel

COMPLETE = "COMPLETE"  # written last into a checkpoint; one without it was cut short by a kill
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True)
class Objective:
    """A loss summed over rows, and the mass that it is divided by, summed over an optimiser step."""

    loss: Callable[[tuple[Tensor, ...], Batch], Tensor]
    mass: Callable[[Batch], Tensor]


def sft_objective() -> Objective:
    """Weighted mean negative log-likelihood per completion token."""
    return Objective(
        loss=lambda log_probs, batch: sft_loss(log_probs, batch["weights"]),
        mass=lambda batch: (torch.tensor(batch["lengths"]) * batch["weights"]).sum(),
    )


def dpo_objective(beta: float) -> Objective:
    """Weighted mean DPO loss per pair."""

    def loss(log_probs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        policy = sequence_sums(log_probs).view(-1, 2)
        return dpo_loss(policy, batch["reference"], batch["weights"], batch["flips"], beta)

    return Objective(loss=loss, mass=lambda batch: batch["weights"].sum())


def train_phase(
    model: "PeftModel",
    rows: Sequence[Row],
    objective: Objective,
    phase: Phase,
    *,
    folder: Path,
    pad_id: int,
    seed: int,
    checkpoint_steps: int,
    device: str,
    callbacks: Sequence[TrainerCallback],
) -> list[dict[str, float]]:
    """Train `model` in place and return the logged curve, one entry an optimiser step.

    Goes on from the last complete checkpoint in `folder`; the result is the same, bit for bit.
    """
    lengths = [row.length for row in rows]
    micro_batches = plan(
        lengths, batch_rows=phase.batch_rows, micro_rows=phase.micro_rows, epochs=phase.epochs, seed=seed
    )
    accumulation = math.ceil(phase.batch_rows / phase.micro_rows)
    steps = math.ceil(len(micro_batches) / accumulation)
    trainer = WeightedTrainer(
        objective=objective,
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            per_device_train_batch_size=1,  # the data set's items are micro-batches already
            gradient_accumulation_steps=accumulation,
            num_train_epochs=1,
            max_grad_norm=MAX_GRAD_NORM,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_steps=checkpoint_steps,
            save_total_limit=2,
            seed=seed,
            use_cpu=device == "cpu",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=[],
            dataloader_pin_memory=False,
        ),
        train_dataset=[[rows[index] for index in micro] for micro in micro_batches],
        data_collator=lambda items: collate(items[0], pad_id),
        optimizers=_optimizer(model, phase, steps),
        callbacks=list(callbacks),
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=latest_checkpoint(folder))
    return [entry for entry in trainer.state.log_history if "loss" in entry]


class WeightedTrainer(Trainer):  # type: ignore[misc]
    """Divides each micro-batch's loss by the mass of its whole optimiser step, and marks complete checkpoints."""

    loss_is_scaled_for_ga = True

    def __init__(self, *, objective: Objective, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.objective = objective

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        batches, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        return batches, torch.stack([self.objective.mass(batch) for batch in batches]).sum()

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        self.state.num_input_tokens_seen += inputs["num_tokens"]
        loss: Tensor = self.objective.loss(completion_log_probs(model, inputs), inputs) / num_items_in_batch
        return loss

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        (Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}" / COMPLETE).touch()


def latest_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint; incomplete ones are removed."""
    found = {int(path.name.rpartition("-")[2]): path for path in folder.glob("checkpoint-*")}
    for path in found.values():
        if not (path / COMPLETE).exists():
            shutil.rmtree(path)
    complete = [step for step, path in found.items() if path.exists()]
    return str(found[max(complete)]) if complete else None


def _optimizer(model: "PeftModel", phase: Phase, steps: int) -> tuple[Any, Any]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=phase.learning_rate, weight_decay=0.0)
    share = partial(schedule, steps=steps, warmup_steps=round(steps * phase.warmup_share))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)
