"""A real vLLM on this machine's CPU, from the environment that `make test-vllm` creates; our processes beside it."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from ratchet.http_service import free_ports

PYTHON = Path(__file__).resolve().parents[2] / ".venv-vllm" / "bin" / "python"
MAX_RANK, SLOTS = 16, 32
START_S = 240.0  # on a machine with other work; a quiet one takes 25
ENVIRONMENT = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",  # with more on a busy machine, threads wait for one that is not scheduled: 0.4 tokens/s
}


def need_vllm() -> None:
    """Skip where there is no vLLM."""
    if not PYTHON.exists():
        pytest.skip("no .venv-vllm: `make test-vllm` creates it")


class VllmServer:
    """One server, which can be started again on its port. `served`: the base model's name."""

    def __init__(self, model: Path, served: str, logs: Path) -> None:
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self.log = logs / "vllm.log"
        # More slots than adapters that are ever loaded: without a free one, vLLM on a CPU answers for the base model as
        # an adapter, and a slot stays taken after its adapter was unloaded.
        self._args = [
            f"--model={model}", f"--served-model-name={served}", "--dtype=float32", "--max-model-len=512",
            "--host=127.0.0.1", f"--port={self.url.rpartition(':')[2]}", "--enable-lora",
            f"--max-loras={SLOTS}", f"--max-lora-rank={MAX_RANK}", "--enforce-eager", "--max-num-seqs=16",
            "--shutdown-timeout=60",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None, "start it first"
        return self._process

    def ensure(self) -> None:
        """Start it unless it runs, and wait until it is healthy; one that dies meanwhile is started again, once."""
        started = 0
        deadline = time.monotonic() + 2 * START_S
        while not self.is_healthy():
            assert time.monotonic() < deadline, self.tail()
            if self._process is None or self._process.poll() is not None:
                started += 1
                if started > 2:
                    pytest.fail(self.tail())
                self._start()
            time.sleep(0.05)

    def _start(self) -> None:
        self.end()
        # The module: the command `vllm` asks for the version of a distribution of another name than this one has.
        command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", *self._args]
        own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command, env=own | ENVIRONMENT, stdout=log, stderr=log, start_new_session=True
            )

    def is_healthy(self) -> bool:
        try:
            return httpx.get(f"{self.url}/health", timeout=5, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def worker(self) -> psutil.Process:
        """Return the process that holds the model: a child of the engine, which is the server's."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return max(children, key=lambda child: child.memory_info().rss)

    def tail(self) -> str:
        return self.log.read_text(errors="replace")[-4000:]

    def end(self) -> None:
        """Kill every process of the server."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def wait_for(claim: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.05)


@contextmanager
def service(log: Path, *command: object, **env: str) -> Iterator[str]:
    """The address of one of our own services as a process of its own: `python -m command…`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RATCHET_")} | env
    with log.open("ab") as output:
        process = subprocess.Popen([sys.executable, "-m", *map(str, command)], env=environment, stderr=output)
    try:
        wait_for(lambda: "http://" in log.read_text() or process.poll() is not None)
        yield log.read_text().split("http://", 1)[1].split()[0].join(["http://", ""])
    finally:
        process.terminate()
        process.wait(30)
