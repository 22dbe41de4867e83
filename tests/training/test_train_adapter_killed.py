"""A training that was killed, wherever it was, ends with the bytes of one that was not."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.manifest import Manifest
from ratchet.registry.mlflow_store import connect
from ratchet.step import run_step
from ratchet.store import open_store
from ratchet.training.train_adapter import STEP, _training
from support import trainings
from support.s3_server import s3_server
from support.trainings import DPO, SFT, STEPS, curve, publish, train


@pytest.fixture(scope="module")
def all_phases(settings) -> Config:
    """SFT, DPO that stops early, and KTO."""
    stop = {"share": 0.25, "every_steps": 1, "patience": 4}
    phase = {"batch_rows": 4, "epochs": 2, "learning_rate": 1e-2}
    return settings(dpo={**phase, "epochs": 8, "stop": stop}, kto=phase)


@pytest.fixture(scope="module")
def undisturbed(all_phases, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return train(all_phases, tmp_path_factory.mktemp("undisturbed") / "first")[1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_training_killed_in_each_phase_ends_with_the_same_bytes(undisturbed, all_phases, tmp_path):
    config = all_phases
    store = open_store(tmp_path / "lake")
    dataset = publish(store, tmp_path / "dataset", SFT, DPO)
    (tmp_path / "config.json").write_text(config.model_dump_json())
    (tmp_path / "dataset.json").write_text(dataset.model_dump_json())
    for phase in ("sft", "dpo", "kto"):
        kill_after(f"lake/work/train_adapter/*/{phase}/checkpoint-2/COMPLETE", tmp_path)
        assert not store.exists("adapters")
        (scratch,) = store.local("work/train_adapter").iterdir()
        cut_short = scratch / phase / "checkpoint-5"  # as if killed while saving it
        cut_short.mkdir()
    run_id = (scratch / "mlflow_run_id").read_text()
    resumed = run_step(STEP, config, {"build_datasets": dataset}, store).manifest
    assert resumed.outputs == undisturbed.outputs
    assert resumed.facts["mlflow_run_id"] == run_id
    assert resumed.facts["kept"] == undisturbed.facts["kept"]
    assert curve(resumed) == curve(undisturbed)
    logged = connect(config, store).get_metric_history(run_id, "sft/loss")
    assert [metric.step for metric in logged] == STEPS


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("checkpoint", ["sft/checkpoint-4", "dpo/checkpoint-2", "dpo/checkpoint-4", "kto/checkpoint-4"])
def test_training_killed_on_one_machine_is_finished_on_another(
    checkpoint, undisturbed, all_phases, tmp_path, monkeypatch
):
    with s3_server("lake"):
        store = open_store("s3://lake/killed")
        dataset = publish(store, tmp_path / "dataset", SFT, DPO)
        (tmp_path / "config.json").write_text(all_phases.model_dump_json())
        (tmp_path / "dataset.json").write_text(dataset.model_dump_json())
        work = _training(all_phases, {"build_datasets": dataset}, store).work
        (tmp_path / "first").mkdir()
        start_and_kill(tmp_path, store.root, lambda: any(f"{checkpoint}/COM" in key for key in store.list(work)))
        assert not store.exists("adapters")
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "second"))
        (tmp_path / "second").mkdir()
        elsewhere = open_store(store.root)
        resumed = run_step(STEP, all_phases, {"build_datasets": dataset}, elsewhere).manifest
        assert resumed.outputs == undisturbed.outputs
        assert curve(resumed) == curve(undisturbed)
        assert not list(elsewhere.list("work"))
        assert (tmp_path / "second" / "ratchet").is_dir()


def test_two_trainings_of_one_adapter_do_not_share_checkpoints(settings, tmp_path):
    store = open_store(tmp_path / "lake")
    dataset = publish(store, tmp_path / "dataset", SFT, DPO)
    scratch = store.local(_training(settings(), {"build_datasets": dataset}, store).work)
    scratch.mkdir(parents=True)
    with (scratch / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process"):
            run_step(STEP, settings(), {"build_datasets": dataset}, store)


def kill_after(pattern: str, folder: Path) -> None:
    """Train in another process and SIGKILL it as soon as a file matches."""
    start_and_kill(folder, str(folder / "lake"), lambda: next(folder.glob(pattern), None))


def start_and_kill(folder: Path, lake: str, condition: Callable[[], object]) -> None:
    process = subprocess.Popen(
        [sys.executable, trainings.__file__, str(folder), lake],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TMPDIR": str(folder / "first")},
    )
    try:
        wait_for(condition, process)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def wait_for(condition, process: subprocess.Popen) -> None:
    while not condition():
        assert process.poll() is None, "training ended before it could be killed"
        time.sleep(0.01)
