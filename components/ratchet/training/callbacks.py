"""Watching a phase: a progress bar for people, a curve in MLflow for later."""

import time
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Phase, step, loss, rows and tokens a second and time left on stderr; silent where stderr is no terminal."""

    def __init__(self, phase: str, batch_rows: int) -> None:
        self.phase, self.batch_rows = phase, batch_rows
        console = Console(stderr=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}  {task.fields[speed]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.task = self.progress.add_task(
            self.phase, total=state.max_steps, completed=state.global_step, loss="-", speed="-"
        )
        self.progress.start()
        self.started, self.first_step = time.monotonic(), state.global_step
        self.first_token = state.num_input_tokens_seen

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **rest: Any) -> None:
        if "loss" in logs:
            seconds = time.monotonic() - self.started
            rows = (state.global_step - self.first_step) * self.batch_rows
            tokens = state.num_input_tokens_seen - self.first_token
            speed = f"{rows / seconds:.1f} rows/s  {tokens / seconds:.0f} tokens/s"
            self.progress.update(self.task, completed=state.global_step, loss=f"{logs['loss']:.4f}", speed=speed)

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.progress.stop()


class MlflowCurve(TrainerCallback):  # type: ignore[misc]
    """Loss, gradient norm, learning rate, tokens a second and what the objective watches of every step.

    Each step is logged once, however often it is run.
    """

    def __init__(self, client: "MlflowClient", run_id: str, phase: str) -> None:
        self.client, self.run_id, self.phase = client, run_id, phase
        logged = client.get_metric_history(run_id, f"{phase}/loss")
        self.last_step = max((metric.step for metric in logged), default=0)

    def on_step_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.started, self.tokens = time.monotonic(), state.num_input_tokens_seen

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **rest: Any) -> None:
        from mlflow.entities import Metric

        if "loss" not in logs or state.global_step <= self.last_step:
            return
        speed = (state.num_input_tokens_seen - self.tokens) / (time.monotonic() - self.started)
        measured = {**logs, "tokens_per_s": speed}
        now_ms = int(time.time() * 1000)
        self.client.log_batch(
            self.run_id,
            metrics=[
                Metric(f"{self.phase}/{name}", float(value), now_ms, state.global_step)
                for name, value in measured.items()
            ],
        )
