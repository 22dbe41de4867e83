"""One phase of training: our rows, losses and plan under `transformers.Trainer`'s loop and checkpoints."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ratchet.config import Phase
from ratchet.training.batches import Batch, Layout, collate, plan
from ratchet.training.checkpoints import Place, Publish
from ratchet.training.losses import schedule
from ratchet.training.objectives import Objective
from ratchet.training.policy import completion_log_probs
from ratchet.training.rows import Row

if TYPE_CHECKING:
    from peft import PeftModel

MAX_GRAD_NORM = 1.0


def train_phase(
    model: "PeftModel",
    rows: Sequence[Row],
    objective: Objective,
    phase: Phase,
    *,
    place: Place,
    layout: Layout,
    seed: int,
    checkpoint_steps: int,
    device: str,
    callbacks: Sequence[TrainerCallback],
) -> list[dict[str, float]]:
    """Train `model` in place and return the logged curve, one entry an optimiser step.

    Goes on from the last complete checkpoint in `place`; the result is the same, bit for bit.
    """
    steps = plan(rows, batch_rows=phase.batch_rows, epochs=phase.epochs, seed=seed, layout=layout)
    trainer = WeightedTrainer(
        objective=objective,
        model=model,
        args=TrainingArguments(
            output_dir=str(place.folder),
            per_device_train_batch_size=1,  # the data set's items are optimiser steps already
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
        train_dataset=[[[rows[index] for index in chosen] for chosen in step] for step in steps],
        data_collator=lambda items: [collate(chosen, layout) for chosen in items[0]],
        optimizers=_optimizer(model, phase, len(steps)),
        callbacks=[Publish(place), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=place.latest())
    return [entry for entry in trainer.state.log_history if "loss" in entry]


class WeightedTrainer(Trainer):  # type: ignore[misc]
    """Takes a list of forward passes as one optimiser step, and divides its loss by the mass of them all."""

    def __init__(self, *, objective: Objective, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.objective = objective
        self.watched: dict[str, float] = {}

    def training_step(self, model: Any, inputs: list[Batch], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        mass = torch.stack([self.objective.mass(batch) for batch in inputs]).sum()
        losses: list[Tensor] = []
        watched: dict[str, list[Tensor]] = {}
        for batch in (self._prepare_inputs(batch) for batch in inputs):
            log_probs = completion_log_probs(model, batch)
            loss = self.objective.loss(log_probs, batch) / mass
            self.accelerator.backward(loss)
            losses.append(loss.detach())
            for name, values in self.objective.watch(tuple(part.detach() for part in log_probs), batch).items():
                watched.setdefault(name, []).append(values)
        self.state.num_input_tokens_seen += sum(batch["num_tokens"] for batch in inputs)
        self.watched = {name: torch.cat(values).mean().item() for name, values in watched.items()}
        return torch.stack(losses).sum()

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        super().log({**logs, **self.watched} if "loss" in logs else logs, *rest)

    def floating_point_ops(self, inputs: list[Batch]) -> int:
        return 0  # the base class would look into a dictionary of tensors

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(train_dataset)


def _optimizer(model: "PeftModel", phase: Phase, steps: int) -> tuple[Any, Any]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=phase.learning_rate, weight_decay=0.0)
    share = partial(schedule, steps=steps, warmup_steps=round(steps * phase.warmup_share))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)
