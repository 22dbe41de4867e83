"""Train in several processes, one per GPU, as `accelerate launch` starts them (data parallelism).

Each process takes every optimiser step and computes a share of its forward passes; the gradients are summed. The first
process publishes; the others assist.
"""

import os
from contextlib import AbstractContextManager, nullcontext

from ratchet.config import TrainAdapter
from ratchet.errors import UserError


def join(settings: TrainAdapter) -> None:
    """Join the process group. Raises UserError if the number of processes differs from `processes`."""
    started = int(os.environ.get("WORLD_SIZE", "1"))
    if started != settings.processes:
        raise UserError(
            f"train_adapter.processes = {settings.processes}, but {started} started; run it as `accelerate launch "
            f"--num_processes {settings.processes} -m ratchet_pipelines.cli train_adapter ...`"
        )
    if started > 1:
        from accelerate import PartialState

        PartialState(cpu=settings.device == "cpu")


def first_goes_first() -> AbstractContextManager[None]:
    """Run the block in the first process before the others, so that they find its results in the lake."""
    from accelerate import PartialState

    context: AbstractContextManager[None] = (
        PartialState().main_process_first() if int(os.environ.get("WORLD_SIZE", "1")) > 1 else nullcontext()
    )
    return context
