"""Follow a phase while it trains: progress on stderr, and its curve in MLflow."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from ratchet.progress import show_progress

if TYPE_CHECKING:
    from mlflow import MlflowClient


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """Shows phase, step, loss, rows and tokens per second on stderr: a bar, or lines in a log."""

    def __init__(self, phase: str, batch_rows: int) -> None:
        self.phase, self.batch_rows = phase, batch_rows
        self.shown = ExitStack()

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.progress = self.shown.enter_context(show_progress(self.phase, state.max_steps))
        self.started, self.first_step = time.monotonic(), state.global_step
        self.first_token = state.num_input_tokens_seen

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **rest: Any) -> None:
        if "loss" in logs:
            seconds = time.monotonic() - self.started
            rows = (state.global_step - self.first_step) * self.batch_rows
            tokens = state.num_input_tokens_seen - self.first_token
            speed = f"{rows / seconds:.1f} rows/s, {tokens / seconds:.0f} tokens/s"
            step = f"{self.phase} step {state.global_step} of {state.max_steps}"
            self.progress.update(state.global_step, f"{step}, loss {logs['loss']:.4f}, {speed}")

    def on_train_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.shown.close()


class MlflowCurve(TrainerCallback):  # type: ignore[misc]
    """Logs each step's loss, gradient norm, learning rate, tokens per second and the objective's own numbers.

    A step that a resumed training repeats is not logged twice.
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
