"""Keep checkpoints in the lake, so that any machine can resume a killed training from the last complete one."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ratchet.store import Store

COMPLETE = "COMPLETE"  # written last into a checkpoint; without it the checkpoint is half-written


@dataclass(frozen=True)
class CheckpointFolder:
    """A phase's checkpoints: under `key` in the store, in `folder` on this machine."""

    store: Store
    key: str

    @property
    def folder(self) -> Path:
        return self.store.local(self.key)

    def latest(self) -> str | None:
        """Return the path of the newest complete checkpoint, on this machine; remove half-written ones."""
        complete = {}
        for path in self.folder.glob("checkpoint-*"):
            if (path / COMPLETE).exists():
                complete[int(path.name.rpartition("-")[2])] = str(path)
            else:
                self._remove(path)
        return complete[max(complete)] if complete else None

    def publish(self, name: str) -> None:
        """Copy a local checkpoint to the lake, its COMPLETE mark last; then remove the earlier ones."""
        path = self.folder / name
        self.store.put_tree(path, f"{self.key}/{name}")
        self.store.create_if_absent(f"{self.key}/{name}/{COMPLETE}", b"")
        (path / COMPLETE).touch()
        complete = {key.split("/")[-2] for key in self.store.list(self.key) if key.endswith(f"/{COMPLETE}")}
        for earlier in complete - {name}:
            self._remove(self.folder / earlier)

    def _remove(self, path: Path) -> None:
        self.store.remove(f"{self.key}/{path.name}")
        shutil.rmtree(path, ignore_errors=True)


class PublishCheckpoint(TrainerCallback):  # type: ignore[misc]
    """Publishes each checkpoint as soon as the trainer has written it."""

    def __init__(self, place: CheckpointFolder) -> None:
        self.place = place

    def on_save(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        if state.is_world_process_zero:
            self.place.publish(f"checkpoint-{state.global_step}")
