"""What `register_adapter` reads, made up; and, as a script, that step killed at each of its calls to MLflow."""

import json
import os
import signal
import sys
from pathlib import Path

from ratchet.config import Config
from ratchet.digest import canonical_json, digest_bytes
from ratchet.manifest import Artifact, Manifest
from ratchet.registry.register_adapter import STEP
from ratchet.store import LocalStore
from support import tiny_adapter

STOPS = (
    "create_run", "log_inputs", "create_logged_model", "log_model_artifacts", "finalize_logged_model",
    "create_registered_model", "create_model_version", "set_registered_model_alias",
)  # fmt: skip
CARD = {"base_model": "tiny", "base_revision": "r", "chat_template_hash": "c", "code_version": "0"}
CHECK = {"name": "format", "candidate": 0.1, "incumbent": 0.2, "difference": -0.1}


def inputs(store: LocalStore, verdict: str = "pass", weight: float = 1.0) -> dict[str, Manifest]:
    folder = tiny_adapter.smallest(store.path / "made", weight)
    (folder / "adapter.json").write_text(json.dumps(CARD))
    judged = {"candidate": "x", "incumbent": "base", "verdict": verdict, "why": "for a reason", "checks": [CHECK]}
    data = canonical_json(judged)
    uri = f"verdicts/{digest_bytes(data)}/verdict.json"
    if not store.exists(uri):
        store.create(uri, data)
    return {
        "build_datasets": tiny_adapter.manifest(
            "build_datasets", "dataset", Artifact(uri="datasets/d", digest="d" * 64)
        ),
        "train_adapter": tiny_adapter.manifest("train_adapter", "adapter", tiny_adapter.publish(store, folder)),
        "evaluate_adapter": tiny_adapter.manifest(
            "evaluate_adapter", "verdict", Artifact(uri=uri, digest=digest_bytes(data))
        ),
    }


def register_until(stop: str, store: LocalStore) -> None:
    """Run the step up to the end of its first call of `stop`; then SIGKILL."""
    from mlflow import MlflowClient

    real = getattr(MlflowClient, stop)

    def deadly(self: MlflowClient, *args: object, **named: object) -> None:
        real(self, *args, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(MlflowClient, stop, deadly)
    STEP.run(Config(), inputs(store), store)


def main(root: Path) -> None:
    import mlflow  # noqa: F401  before the forks: importing it takes seconds

    for lake in sorted(root.iterdir()):
        child = os.fork()
        if child == 0:
            register_until(lake.name, LocalStore(lake))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if not os.WIFSIGNALED(status):
            sys.exit(f"{lake.name} was not killed: the step does not call it")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
