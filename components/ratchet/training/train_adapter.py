"""Step `train_adapter`: train one LoRA adapter by weighted SFT, then weighted DPO with the SFT model as reference.

A killed run resumes from its last checkpoint, kept in the lake under a key of the work, on any machine. It gives the
same bytes as an uninterrupted run.
"""

import fcntl
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.base_model import revision
from ratchet.config import Config, Phase
from ratchet.digest import digest_json
from ratchet.errors import UserError
from ratchet.manifest import Artifact, Flow, StepOutput
from ratchet.needs import ENVIRONMENT_SECRET, HOUR_S, HUB, MLFLOW, S3, Needs
from ratchet.step import Inputs, Step
from ratchet.store import Store
from ratchet.training.phases import Training, layout_of, read_phases, run_phases

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase, TrainerCallback

    from ratchet.training.batches import Layout
    from ratchet.training.tokenization import Selection


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    """Train and publish the adapter as `adapters/<digest>/`.

    Raises UserError if the dataset has nothing to train on, or another process is training the same adapter.
    """
    from ratchet.training.adapter import write_adapter
    from ratchet.training.determinism import deterministic
    from ratchet.training.distributed import join
    from ratchet.training.tokenization import DROPS

    join(config.train_adapter)
    training = _training(config, inputs, store)
    dataset = training.dataset
    with _locked(store.local(training.work)), deterministic(config.train_adapter.threads):
        model, tokenizer = fresh_adapter(config)
        phases = read_phases(config, store.local(dataset.uri), tokenizer)
        drops = sum((Counter(selection.drops) for selection in phases.values()), Counter())
        if not any(selection.rows for selection in phases.values()):
            raise UserError(
                f"dataset {dataset.digest[:12]} has nothing to train on: dropped {dict(drops)}; collect more feedback, "
                "or look at train_adapter.max_tokens and epochs"
            )
        facts = _train(training, model, phases, layout_of(config.train_adapter, tokenizer))
        with tempfile.TemporaryDirectory() as aside:
            write_adapter(Path(aside), model, tokenizer, config, dataset.digest)
            tree = store.publish_tree(Path(aside), "adapters")
    rows_out = sum(len(selection.rows) for selection in phases.values())
    return StepOutput(
        outputs={"adapter": Artifact(uri=tree.uri, digest=tree.digest)},
        flows={
            "rows": Flow(
                rows_in=rows_out + drops.total(), rows_out=rows_out, drops={r: drops[r] for r in DROPS if drops[r]}
            )
        },
        facts=facts,
    )


def assist(config: Config, inputs: Inputs, store: Store) -> None:
    """Take part as a further process of `processes`: the same steps, a share of their passes, nothing published."""
    from ratchet.training.determinism import deterministic
    from ratchet.training.distributed import join

    join(config.train_adapter)
    training = _training(config, inputs, store)
    with deterministic(config.train_adapter.threads):
        model, tokenizer = fresh_adapter(config)
        phases = read_phases(config, store.local(training.dataset.uri), tokenizer)
        run_phases(training, model, phases, layout_of(config.train_adapter, tokenizer), lambda name: [])


def _training(config: Config, inputs: Inputs, store: Store) -> Training:
    settings = config.train_adapter.model_dump(mode="json")
    base = [revision(config.base_model), config.base_model.dtype]
    dataset = inputs["build_datasets"].outputs["dataset"]
    key = digest_json([dataset.digest, settings, config.seed, base])[:32]
    return Training(config, store, dataset, work=f"work/train_adapter/{key}")


@contextmanager
def _locked(scratch: Path) -> Iterator[None]:
    """Hold the lock on the checkpoints: two trainings that share them would corrupt each other's."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training the same adapter in {scratch}; wait for it") from None
        yield


def fresh_adapter(config: Config) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
    """Return the base model under a new adapter: seeded random `A`, zero `B`, so it starts out as the base model."""
    import torch
    from peft import LoraConfig, get_peft_model

    from ratchet.base_model import load_base
    from ratchet.training.attention import attend_by_row
    from ratchet.training.fused_lora import fuse
    from ratchet.training.log_probs import require_plain_head

    settings = config.train_adapter
    model, tokenizer = load_base(config.base_model, quantize=settings.quantize)
    attend_by_row(model, settings)
    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=settings.lora.r,
        lora_alpha=settings.lora.alpha,
        use_rslora=settings.lora.rank_stabilized,
        use_dora=settings.lora.dora,
        target_modules="all-linear",
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, lora).to(settings.device)
    fuse(peft_model)
    require_plain_head(peft_model)
    return peft_model, tokenizer


def plan_training(config: Config, inputs: Inputs, store: Store) -> dict[str, Any]:
    """Estimate what `run` would compute for these inputs, without loading the weights (see `cost_estimate`)."""
    from ratchet.base_model import load_tokenizer
    from ratchet.training.cost_estimate import estimate_cost

    dataset = inputs["build_datasets"].outputs["dataset"]
    tokenizer = load_tokenizer(config.base_model)
    phases = read_phases(config, store.local(dataset.uri), tokenizer)
    drops = {name: selection.drops for name, selection in phases.items()}
    return {**estimate_cost(config, phases, layout_of(config.train_adapter, tokenizer)), "drops": drops}


def _train(training: Training, model: "PeftModel", phases: dict[str, "Selection"], layout: "Layout") -> dict[str, Any]:
    """Run every phase on `model` in place; return the facts for the report."""
    from ratchet.registry.mlflow_store import connect
    from ratchet.training.alarms import alarms
    from ratchet.training.callbacks import MlflowCurve, ProgressBar
    from ratchet.training.early_stop import EarlyStopCallback, best

    settings = training.config.train_adapter
    facts = _plan_facts(training.config, phases, layout)
    client = connect(training.config, training.store)
    with _mlflow_run(client, training, facts) as run_id:

        def callbacks(name: str) -> list["TrainerCallback"]:
            phase: Phase = getattr(settings, name)
            return [ProgressBar(name, phase.batch_rows), MlflowCurve(client, run_id, name)]

        history = run_phases(training, model, phases, layout, callbacks)
    looks = EarlyStopCallback.looks([entry for entry in history if entry["phase"] == "dpo"])
    kept = {"kept": asdict(best(looks, settings.dpo.stop))} if len(looks) > 1 else {}
    return {**facts, **kept, "history": history, "alarms": alarms(history), "mlflow_run_id": run_id}


def _plan_facts(config: Config, phases: dict[str, "Selection"], layout: "Layout") -> dict[str, Any]:
    from ratchet.training.cost_estimate import estimate_cost

    plan = estimate_cost(config, phases, layout)
    return {
        "sft_rows": len(phases["sft"].rows),
        "dpo_pairs": len(phases["dpo"].rows),
        "kto_rows": len(phases["kto"].rows) if "kto" in phases else 0,
        "skipped": [name for name, selection in phases.items() if not selection.rows],
        "tokens": sum(phase["tokens"] for phase in plan["phases"].values()),
        "effective_sample_size": {name: phase["effective_rows"] for name, phase in plan["phases"].items()},
        "plan": plan,
    }


@contextmanager
def _mlflow_run(client: "MlflowClient", training: Training, facts: dict[str, Any]) -> Iterator[str]:
    """Yield the id of the training's MLflow run; a resumed training continues the run that it began."""
    from ratchet.registry.mlflow_store import experiment_id, log_dataset

    config, store = training.config, training.store
    note = f"{training.work}/mlflow_run_id"
    if store.exists(note):
        run_id = store.read(note).decode()
        client.update_run(run_id, status="RUNNING")
    else:
        run_id = client.create_run(experiment_id(client, config), run_name="train_adapter").info.run_id
        store.create(note, run_id.encode())
        _log_settings(client, run_id, config, facts)
        log_dataset(client, run_id, training.dataset, store)
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _log_settings(client: "MlflowClient", run_id: str, config: Config, facts: dict[str, Any]) -> None:
    settings = {"seed": config.seed, "base_model": config.base_model.model, **config.train_adapter.model_dump()}
    for name, value in _flatten(settings):
        client.log_param(run_id, name, value)
    for name, size in facts["effective_sample_size"].items():
        client.log_metric(run_id, f"{name}/effective_sample_size", size)


def _flatten(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


STEP = Step(
    name="train_adapter",
    is_exclusive=True,
    run=run,
    assist=assist,
    version=4,
    inputs=("build_datasets",),
    reads=("seed", "base_model"),
    sources=lambda config, inputs, store: {"base": revision(config.base_model)},
    cleanup=lambda config, inputs, store: store.remove(_training(config, inputs, store).work),
    needs=Needs(
        cpu="8",
        memory="64Gi",
        ephemeral_storage="60Gi",  # an 8B base model in bfloat16 takes 16 GB, twice while it is unpacked
        gpus=1,
        shared_memory="8Gi",
        cpu_only=("2", "16Gi"),
        timeout_s=24 * HOUR_S,
        secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW, *HUB)},
    ),
)
