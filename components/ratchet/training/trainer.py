"""Train one phase: our rows, losses and plan under `transformers.Trainer`'s loop and checkpoints.

With several processes, each takes every step, computes its share of the step's passes and sums the gradients itself:
accelerate would hand out whole steps and average them as if all weighed the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
ENTROPY_TOKENS = 32  # tokens of each pass whose entropy is measured; each costs a row of logits


@dataclass(frozen=True, kw_only=True)
class PhaseRun:
    """One phase of a training: its rows, how they are batched and optimised, and where its checkpoints are kept."""

    rows: Sequence[TokenizedRow]
    steps: Sequence[Sequence[Sequence[int]]]
    """Optimiser steps, as forward passes of indices into `rows` (see `batches.plan`)."""
    layout: Layout
    objective: Objective
    phase: Phase
    place: CheckpointFolder
    seed: int = 0
    checkpoint_steps: int
    device: str


def train_phase(
    model: "PeftModel",
    run: PhaseRun,
    callbacks: Sequence[TrainerCallback] = (),
    early_stop: EarlyStopCallback | None = None,
) -> list[dict[str, float]]:
    """Train `model` in place and return the logged curve, one entry for each step.

    Resumes from the last complete checkpoint in `run.place`; the result is the same, bit for bit. With `early_stop` the
    model ends with the best adapter that it saw.
    """
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trainable, lr=run.phase.learning_rate, weight_decay=0.0)
    num_steps = len(run.steps)
    share = partial(schedule, steps=num_steps, warmup_steps=round(num_steps * run.phase.warmup_share))
    trainer = WeightedTrainer(
        objective=run.objective,
        model=model,
        args=TrainingArguments(
            output_dir=str(run.place.folder),
            per_device_train_batch_size=1,  # the data set's items are optimiser steps already
            num_train_epochs=1,
            max_grad_norm=MAX_GRAD_NORM,
            logging_steps=1,
            logging_nan_inf_filter=False,
            save_steps=run.checkpoint_steps,
            save_total_limit=2,
            seed=run.seed,
            use_cpu=run.device == "cpu",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=[],
            dataloader_pin_memory=False,
        ),
        train_dataset=[[[run.rows[index] for index in chosen] for chosen in step] for step in run.steps],
        data_collator=lambda items: [collate(chosen, run.layout) for chosen in items[0]],
        optimizers=(optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, share)),
        callbacks=[PublishCheckpoint(run.place), *([early_stop] if early_stop else []), *callbacks],
        watched=early_stop.seen if early_stop else {},
    )
    trainer.remove_callback(PrinterCallback)
    with first_goes_first():
        latest = run.place.latest()
    trainer.train(resume_from_checkpoint=latest)
    if early_stop:
        early_stop.restore(trainer.state.log_history)
    return [entry for entry in trainer.state.log_history if "loss" in entry]


class WeightedTrainer(Trainer):  # type: ignore[misc]
    """A trainer whose batch is one optimiser step: a list of forward passes; the loss is divided by their mass."""

    def __init__(self, *, objective: Objective, watched: dict[str, float], **arguments: Any) -> None:
        super().__init__(**arguments)
        self.objective = objective
        self.watched = watched
        """Numbers that are logged with the current step's loss."""

    def training_step(self, model: Any, inputs: list[PackedBatch], num_items_in_batch: Any = None) -> Tensor:
        model.train()
        mass = torch.stack([self.objective.mass(batch) for batch in inputs]).sum()
        total = torch.zeros((), device=self.args.device)
        watched: dict[str, list[Tensor]] = {}
        for batch in inputs[self.args.process_index :: self.args.world_size]:
            loss, numbers = self._run_pass(self._prepare_inputs(batch), mass)
            total += loss
            for name, values in numbers.items():
                watched.setdefault(name, []).append(values.cpu())
        if self.args.world_size > 1:
            self._sum_gradients()
        self.state.num_input_tokens_seen += sum(batch["num_tokens"] for batch in inputs)
        totals, parts = zip(*gather_object([(total.cpu(), watched)]), strict=True)
        self.watched.clear()
        for name in parts[0]:
            self.watched[name] = torch.cat([value for part in parts for value in part.get(name, [])]).mean().item()
        return torch.stack(totals).sum().to(total.device)

    def _run_pass(self, batch: PackedBatch, mass: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Go forward and backward through one pass; return its share of the loss and the numbers to watch."""
        states = predicting_states(self.model, batch)
        log_probs = log_probs_at(states, self.model, batch)
        loss = self.objective.loss(log_probs, batch) / mass
        self.accelerator.backward(loss)
        numbers = self.objective.watch(tuple(part.detach() for part in log_probs), batch)
        every = -(-len(states) // ENTROPY_TOKENS)
        entropy = mean_entropy(states.detach()[::every], output_head(self.model))
        return loss.detach(), {**numbers, "entropy": entropy[None]}

    def _sum_gradients(self) -> None:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in trained:
            if parameter.grad is None:  # this process had no pass to compute
                parameter.grad = torch.zeros_like(parameter)
        sums = self.accelerator.reduce(torch.cat([parameter.grad.flatten() for parameter in trained]), "sum")
        for parameter, part in zip(trained, sums.split([parameter.numel() for parameter in trained]), strict=True):
            parameter.grad.copy_(part.view_as(parameter))

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=1, collate_fn=self.data_collator)  # in order, in every process

    def log(self, logs: dict[str, float], *rest: Any) -> None:
        super().log({**logs, **self.watched} if "loss" in logs else logs, *rest)

    def floating_point_ops(self, inputs: list[PackedBatch]) -> int:
        return 0  # the base class expects one dictionary of tensors
