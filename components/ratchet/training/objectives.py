"""Define what each phase minimises: a loss summed over rows, its mass, and numbers for the curves."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ratchet.config import PairLoss
from ratchet.training.batches import PackedBatch
from ratchet.training.losses import dpo_loss, drift_estimate, kto_loss, pair_margins, sequence_sums, sft_loss

LogProbs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Objective:
    """A loss summed over rows, and the mass that divides it, summed over an optimiser step."""

    loss: Callable[[LogProbs, PackedBatch], Tensor]
    mass: Callable[[PackedBatch], Tensor]
    watch: Callable[[LogProbs, PackedBatch], dict[str, Tensor]] = lambda log_probs, batch: {}
    """Returns numbers for the curves, [rows] each; their mean over an optimiser step is logged."""


def sft_objective() -> Objective:
    """Return the objective of SFT: the weighted mean negative log-likelihood per completion token."""
    return Objective(
        loss=lambda log_probs, batch: sft_loss(log_probs, batch["weights"]),
        mass=lambda batch: (torch.tensor(batch["lengths"], device=batch["weights"].device) * batch["weights"]).sum(),
    )


def dpo_objective(kind: PairLoss, beta: float) -> Objective:
    """Return the objective of DPO and IPO: the mean over pairs of the weighted loss, for weights of mean 1."""

    def loss(log_probs: LogProbs, batch: PackedBatch) -> Tensor:
        margins = pair_margins(log_probs, batch["reference"], kind)
        return dpo_loss(margins, batch["weights"], batch["flips"], kind, beta)

    def watch(log_probs: LogProbs, batch: PackedBatch) -> dict[str, Tensor]:
        gains = sequence_sums(log_probs).view(-1, 2) - batch["reference"]
        chosen, rejected = gains.unbind(1)
        longer = gains.new_tensor(batch["lengths"]).view(-1, 2).diff(dim=1).squeeze(1) < 0
        return {
            "accuracy": (chosen > rejected).float(),
            "chosen_gain": chosen,
            "margin": chosen - rejected,
            "longer_chosen": longer.float(),
            "longer_gains": ((chosen > rejected) == longer).float(),
        }

    return Objective(loss=loss, mass=_num_rows, watch=watch)


def kto_objective(beta: float) -> Objective:
    """Return the objective of KTO: the mean over single votes of the weighted loss.

    A row's second completion is another row's answer, on which the drift is measured.
    """

    def loss(log_probs: LogProbs, batch: PackedBatch) -> Tensor:
        own, others = (sequence_sums(log_probs).view(-1, 2) - batch["reference"]).unbind(1)
        return kto_loss(own, drift_estimate(others), batch["labels"], batch["weights"], beta)

    def watch(log_probs: LogProbs, batch: PackedBatch) -> dict[str, Tensor]:
        own, others = (sequence_sums(log_probs).view(-1, 2) - batch["reference"]).unbind(1)
        return {"gain": batch["labels"] * own, "drift": others}

    return Objective(loss=loss, mass=_num_rows, watch=watch)


def _num_rows(batch: PackedBatch) -> Tensor:
    return torch.tensor(float(len(batch["weights"])))
