"""What each command needs, read from `needs.json`: generated from the steps by `make golden`, and never edited."""

import json
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

TABLE = json.loads(Path(__file__).with_name("needs.json").read_text(encoding="utf-8"))
GPU_POOL = "gpu"


@dataclass(frozen=True, kw_only=True)
class Needs:
    """One command's row of the table; `ratchet.needs.Needs` says what each field means."""

    cpu: str
    memory: str
    ephemeral_storage: str
    timeout_s: int
    gpus: int
    shared_memory: str | None
    cpu_only: list[str] | None
    secrets: dict[str, list[str]]
    service_account: str

    @property
    def timeout(self) -> timedelta:
        return timedelta(seconds=self.timeout_s)

    @property
    def pool(self) -> str:
        return GPU_POOL if self.gpus else "default_pool"

    @property
    def image(self) -> str:
        return "cuda" if self.gpus else "cpu"


NEEDS = {name: Needs(**row) for name, row in TABLE["commands"].items()}
