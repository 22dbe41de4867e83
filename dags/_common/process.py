"""A command as a process of this machine, in the work environment, which Airflow's own cannot import."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperator, Context

from _common.failures import Broke, failure
from _common.lineage import ReportsLineage

LAST_LINES = 20
GRACE_S = 15
RESULT = "return.json"


class Process(ReportsLineage, BaseOperator):
    """Run `ratchet ...`; its stderr is the task's log, and `return.json`, if it leaves one, the task's result."""

    template_fields = ("arguments", "input_digests")

    def __init__(
        self,
        *,
        program: str,
        arguments: Sequence[str],
        has_result: bool,
        input_digests: dict[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.lake = None  # the environment's
        self.input_digests = input_digests or {}
        self.result: dict[str, Any] | None = None
        self.program = program
        self.arguments = list(arguments)
        self.has_result = has_result
        self.process: subprocess.Popen[str] | None = None

    def execute(self, context: Context) -> dict[str, Any] | None:
        self.result = self.run_command()
        return self.result

    def run_command(self) -> dict[str, Any] | None:
        """The command's result. Raises one of `_common.failures` with its last words."""
        with tempfile.TemporaryDirectory(prefix="ratchet-") as folder:
            out = ["--out", folder] if self.has_result else []
            self._await([self.program, *self.arguments, *out])
            return json.loads((Path(folder) / RESULT).read_text(encoding="utf-8")) if self.has_result else None

    def _await(self, command: Sequence[str]) -> None:
        environment = {**os.environ, "COLUMNS": "200"}  # or the message of a failure is broken at 80
        try:
            # A group of its own, so that on_kill reaches the data loaders that training starts.
            self.process = subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=environment,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise Broke(f"{self.program} is not there; run `make setup`, or set RATCHET_COMMAND") from None
        last: deque[str] = deque(maxlen=LAST_LINES)
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.log.info(line.rstrip())
                last.append(line.rstrip())
        if code := self.process.wait():
            raise failure(f"ratchet {self.arguments[0]}", code, "\n".join(last))

    def on_kill(self) -> None:
        if self.process is None or self.process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(GRACE_S)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
