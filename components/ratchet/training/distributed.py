"""Training in several processes, one a GPU, as `accelerate launch` starts them.

All of them go through every optimiser step and compute a share of its forward passes; the gradients are added up. The
first publishes; the others assist.
"""

import os
from contextlib import AbstractContextManager, nullcontext

from ratchet.config import TrainAdapter
from ratchet.errors import UserError


def join(settings: TrainAdapter) -> None:
    """Meet the other processes. Raises UserError where they are not as many as the settings say."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != settings.processes:
        raise UserError(
            f"train_adapter.processes = {settings.processes}, but started were {started}; run it as `accelerate launch "
            f"--num_processes {settings.processes} -m ratchet_pipelines.cli train_adapter ...`"
        )
    if started > 1:
        from accelerate import PartialState

        PartialState(cpu=settings.device == "cpu")


def first_goes_first() -> AbstractContextManager[None]:
    """The first process runs the block before the others, who find what it left in the lake."""
    from accelerate import PartialState

    context: AbstractContextManager[None] = (
        PartialState().main_process_first() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else nullcontext()
    )
    return context
