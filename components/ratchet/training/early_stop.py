"""Stop preference training early, by accuracy on held-out pairs and by the KL divergence from the reference.

DPO can get worse before one epoch is over, while its own pairs look better and better (arXiv:2406.02900).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor
from transformers import TrainerCallback

from ratchet.config import EarlyStop
from ratchet.training.batches import Layout, collate, passes
from ratchet.training.checkpoints import CheckpointFolder
from ratchet.training.log_probs import completion_log_probs, to_device
from ratchet.training.tokenization import TokenizedRow

if TYPE_CHECKING:
    from peft import PeftModel

ACCURACY, KL = "held_out_accuracy", "held_out_kl"


@dataclass(frozen=True)
class EarlyStopLook:
    """A measurement after `step`: the share of held-out pairs that gained the right way, and KL in nats per token."""

    step: int
    accuracy: float
    kl: float


START = EarlyStopLook(0, 0.5, 0.0)  # the reference has gained nothing on itself: accuracy of a coin toss


def best(looks: Sequence[EarlyStopLook], stop: EarlyStop) -> EarlyStopLook:
    """Return the earliest of the most accurate looks within the KL budget."""
    return max(
        (look for look in looks if stop.max_kl is None or look.kl <= stop.max_kl), key=lambda look: look.accuracy
    )


def is_over(looks: Sequence[EarlyStopLook], stop: EarlyStop) -> bool:
    """Return whether the last look exceeds the KL budget, or `patience` looks have passed since the best."""
    is_spent = stop.max_kl is not None and looks[-1].kl > stop.max_kl
    return is_spent or len(looks) - 1 - looks.index(best(looks, stop)) >= stop.patience


class EarlyStopCallback(TrainerCallback):  # type: ignore[misc]
    """Measures held-out pairs every few steps, and keeps each adapter that is the best so far in the lake.

    Construct it before the phase begins: the model in that state is the reference.
    """

    def __init__(
        self,
        model: "PeftModel",
        rows: Sequence[TokenizedRow],
        stop: EarlyStop,
        *,
        place: CheckpointFolder,
        layout: Layout,
    ):
        self.model, self.stop, self.place = model, stop, place
        self.batches = [collate([rows[index] for index in chosen], layout) for chosen in passes(rows, layout)]
        self.reference = self._log_probs()
        self.seen: dict[str, float] = {}
        """Numbers that are logged with the current step."""
        self._keep(START.step)

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.global_step % self.stop.every_steps and state.global_step < state.max_steps:
            return
        look = self._look(state.global_step)
        looks = [*self.looks(state.log_history), look]
        self.seen |= {ACCURACY: look.accuracy, KL: look.kl}
        if best(looks, self.stop) == look:
            self._keep(look.step)
        if is_over(looks, self.stop) and state.global_step < state.max_steps:
            control.should_training_stop = True
            control.should_save = False  # a resumed training would continue from a checkpoint of this step

    @staticmethod
    def looks(history: Sequence[dict[str, Any]]) -> list[EarlyStopLook]:
        """Return the looks that a phase's curve records, the start included."""
        return [
            START,
            *(EarlyStopLook(entry["step"], entry[ACCURACY], entry[KL]) for entry in history if ACCURACY in entry),
        ]

    def restore(self, history: Sequence[dict[str, Any]]) -> EarlyStopLook:
        """Load the best adapter into the model; return its look."""
        from safetensors.torch import load

        best_look = best(self.looks(history), self.stop)
        kept = load(self.place.store.read(self._key(best_look.step)))
        with torch.no_grad():
            for name, parameter in self._trained():
                parameter.copy_(kept[name])
        return best_look

    def _look(self, step: int) -> EarlyStopLook:
        now = self._log_probs()
        gains = torch.stack([(new - old).sum() for new, old in zip(now, self.reference, strict=True)]).view(-1, 2)
        ratios = torch.cat(now) - torch.cat(self.reference)
        accuracy, kl = (gains[:, 0] > gains[:, 1]).float().mean(), ratios.square().mean() / 2
        shared = [EarlyStopLook(step, accuracy.item(), kl.item())]
        broadcast_object_list(shared)  # several processes must stop together
        return shared[0]

    @torch.no_grad()
    def _log_probs(self) -> list[Tensor]:
        """Return the log-probabilities of each completion's tokens, chosen before rejected, pass by pass."""
        self.model.eval()
        device = self.model.device
        return [part for batch in self.batches for part in completion_log_probs(self.model, to_device(batch, device))]

    def _keep(self, step: int) -> None:
        from safetensors.torch import save

        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in self._trained()}
        self.place.store.create_if_absent(self._key(step), save(weights))

    def _key(self, step: int) -> str:
        return f"{self.place.key}/kept/{step}.safetensors"

    def _trained(self) -> list[tuple[str, Any]]:
        return [(name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad]
