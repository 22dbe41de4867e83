"""One phase of training: our rows, losses and plan under `transformers.Trainer`'s loop and checkpoints.

In several processes each takes every step, computes its share of the step's passes, and adds up the gradients itself:
accelerate would hand out whole steps, and average them as if all weighed the same.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from ratchet.config import Phase
from ratchet.training.batches import Layout, PackedBatch, collate
from ratchet.training.checkpoints import CheckpointFolder, PublishCheckpoint
from ratchet.training.distributed import first_goes_first
from ratchet.training.early_stop import EarlyStopCallback
from ratchet.training.log_probs import log_probs_at, output_head, predicting_states
from ratchet.training.losses import mean_entropy, schedule
from ratchet.training.objectives import Objective
from ratchet.training.tokenization import TokenizedRow

if TYPE_CHECKING:
    from peft import PeftModel

MAX_GRAD_NORM = 1.0
ENTROPY_TOKENS = 32  # of each pass; each costs a row of logits


def train_phase(
    model: "PeftModel",
    rows: Sequence[TokenizedRow],
    objective: Objective,
    phase: Phase,
    *,
    steps: Sequence[Sequence[Sequence[int]]],
    place: CheckpointFolder,
    layout: Layout,
    seed: int,
    checkpoint_steps: int,
    device: str,
    callbacks: Sequence[TrainerCallback],
    watch: EarlyStopCallback | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place and return the logged curve, one entry for each of `steps` (see `batches.plan`).

    Goes on from the last complete checkpoint in `place`; the result is the same, bit for bit. With `watch` the adapter
    ends as the best that it saw.
    """
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
        callbacks=[PublishCheckpoint(place), *([watch] if watch else []), *callbacks],
        watched=watch.seen if watch else {},
    )
    trainer.remove_callback(PrinterCallback)
    with first_goes_first():
        latest = place.latest()
    trainer.train(resume_from_checkpoint=latest)
    if watch:
        watch.restore(trainer.state.log_history)
    return [entry for entry in trainer.state.log_history if "loss" in entry]


class WeightedTrainer(Trainer):  # type: ignore[misc]
    """Takes a list of forward passes as one optimiser step, and divides its loss by the mass of them all."""

    def __init__(self, *, objective: Objective, watched: dict[str, float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.objective = objective
        self.watched = watched
        """What is logged beside the current step's loss."""

    def training_step(self, model: Any, inputs: list[PackedBatch], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        mass = torch.stack([self.objective.mass(batch) for batch in inputs]).sum()
        total = torch.zeros((), device=self.args.device)
        watched: dict[str, list[Tensor]] = {}
        for batch in inputs[self.args.process_index :: self.args.world_size]:
            loss, found = self._take(self._prepare_inputs(batch), mass)
            total += loss
            for name, values in found.items():
                watched.setdefault(name, []).append(values.cpu())
        if self.args.world_size > 1:
            self._add_up_gradients()
        self.state.num_input_tokens_seen += sum(batch["num_tokens"] for batch in inputs)
        totals, parts = zip(*gather_object([(total.cpu(), watched)]), strict=True)
        self.watched.clear()
        for name in parts[0]:
            self.watched[name] = torch.cat([value for part in parts for value in part.get(name, [])]).mean().item()
        return torch.stack(totals).sum().to(total.device)

    def _take(self, batch: PackedBatch, mass: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward and backward through one pass: its share of the loss, and what the objective watches."""
        states = predicting_states(self.model, batch)
        log_probs = log_probs_at(states, self.model, batch)
        loss = self.objective.loss(log_probs, batch) / mass
        self.accelerator.backward(loss)
        found = self.objective.watch(tuple(part.detach() for part in log_probs), batch)
        every = -(-len(states) // ENTROPY_TOKENS)
        entropy = mean_entropy(states.detach()[::every], output_head(self.model))
        return loss.detach(), {**found, "entropy": entropy[None]}

    def _add_up_gradients(self) -> None:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # this process had no pass to compute
                parameter.grad = torch.zeros_like(parameter)
        sums = self.accelerator.reduce(torch.cat([parameter.grad.flatten() for parameter in trained]), "sum")
        for parameter, part in zip(trained, sums.split([parameter.numel() for parameter in trained]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=self.data_collator)  # in order, for everyone

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        super().log({**logs, **self.watched} if "loss" in logs else logs, *rest)

    def floating_point_ops(self, inputs: list[PackedBatch]) -> int:
        return 0  # the base class would look into a dictionary of tensors


def _optimizer(model: "PeftModel", phase: Phase, steps: int) -> tuple[Any, Any]:
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=phase.learning_rate, weight_decay=0.0)
    share = partial(schedule, steps=steps, warmup_steps=round(steps * phase.warmup_share))
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)
