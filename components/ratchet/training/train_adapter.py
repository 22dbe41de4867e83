"""Train one LoRA adapter on a dataset: weighted SFT on good answers, then weighted DPO against what SFT gave.

A killed run goes on from its last checkpoint, in a scratch folder named after the work, and makes the same bytes as an
undisturbed one.
"""

import fcntl
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.base_model import revision
from ratchet.config import Config, Phase
from ratchet.digest import digest_json, digest_tree
from ratchet.errors import UserError
from ratchet.manifest import Artifact, Flow, Made
from ratchet.step import Inputs, Step
from ratchet.store import Store

EAGER_TOKENS = (
    256  # on a CPU, up to about this length, attention by plain products trains faster: 1.3x at 96, 1.0x at 192
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from peft import PeftModel
    from transformers import PreTrainedTokenizerBase

    from ratchet.training.batches import Row, Selection


def run(config: Config, inputs: Inputs, store: Store) -> Made:
    """Publish the adapter as `adapters/<digest>/`.

    Raises UserError where the dataset has nothing to train on, or another process is training the same adapter.
    """
    from ratchet.training.adapter import write_adapter
    from ratchet.training.batches import DROPS
    from ratchet.training.determinism import deterministic

    dataset = inputs["build_datasets"].outputs["dataset"]
    scratch = store.local(f"work/train_adapter/{_work(config, dataset.digest)}")
    with _sole_user(scratch), deterministic(config.train_adapter.threads):
        model, tokenizer = _fresh_adapter(config)
        sft, dpo = _read(config, store.local(dataset.uri), tokenizer)
        if not sft.rows and not dpo.rows:
            raise UserError(
                f"dataset {dataset.digest[:12]} has nothing to train on: dropped {sft.drops} of SFT and {dpo.drops} "
                "of DPO; collect more feedback, or look at train_adapter.max_tokens and epochs"
            )
        facts = _train(config, store, scratch, model, tokenizer, sft, dpo)
        with tempfile.TemporaryDirectory() as aside:
            write_adapter(Path(aside), model, tokenizer, config, dataset.digest)
            digest = digest_tree(Path(aside))
            store.put_tree(Path(aside), f"adapters/{digest}")
        shutil.rmtree(scratch)
    drops = Counter(sft.drops) + Counter(dpo.drops)
    rows_out = len(sft.rows) + len(dpo.rows)
    return Made(
        outputs={"adapter": Artifact(uri=f"adapters/{digest}", digest=digest)},
        flows={
            "rows": Flow(
                rows_in=rows_out + drops.total(), rows_out=rows_out, drops={r: drops[r] for r in DROPS if drops[r]}
            )
        },
        facts=facts,
    )


def _work(config: Config, dataset_digest: str) -> str:
    settings = config.train_adapter.model_dump(mode="json")
    base = [revision(config.base_model), config.base_model.dtype]
    return digest_json([dataset_digest, settings, config.seed, base])[:32]


@contextmanager
def _sole_user(scratch: Path) -> Iterator[None]:
    """Two trainings that share checkpoints would spoil each other's."""
    scratch.mkdir(parents=True, exist_ok=True)
    with (scratch / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another process is training the same adapter in {scratch}; wait for it") from None
        yield


def _fresh_adapter(config: Config) -> tuple["PeftModel", "PreTrainedTokenizerBase"]:
    """The base model under a new adapter: random but seeded `A`, zero `B`, so it starts as the base itself."""
    import torch
    from peft import LoraConfig, get_peft_model

    from ratchet.base_model import load_base
    from ratchet.training.fused_lora import fuse
    from ratchet.training.policy import require_plain_head

    settings = config.train_adapter
    model, tokenizer = load_base(config.base_model)
    if settings.device == "cpu" and settings.max_tokens <= EAGER_TOKENS:
        model.set_attn_implementation("eager")
    torch.manual_seed(config.seed)
    lora = LoraConfig(
        r=settings.lora.r, lora_alpha=settings.lora.alpha, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    peft_model = get_peft_model(model, lora).to(settings.device)
    fuse(peft_model)
    require_plain_head(peft_model)
    return peft_model, tokenizer


def _read(config: Config, folder: Path, tokenizer: "PreTrainedTokenizerBase") -> tuple["Selection", "Selection"]:
    """The SFT rows and DPO pairs of the train split that will be trained on."""
    import polars as pl

    from ratchet.training.batches import dpo_rows, select, sft_rows

    settings = config.train_adapter
    sft = sft_rows(pl.read_parquet(folder / "sft-train.parquet").iter_rows(named=True), tokenizer)
    dpo = dpo_rows(pl.read_parquet(folder / "dpo-train.parquet").iter_rows(named=True), tokenizer)
    return (
        select(sft, max_tokens=settings.max_tokens, max_rows=_max_rows(settings.sft)),
        select(dpo, max_tokens=settings.max_tokens, max_rows=_max_rows(settings.dpo)),
    )


def _max_rows(phase: Phase) -> int | None:
    return phase.max_rows if phase.epochs else 0


def _train(
    config: Config,
    store: Store,
    scratch: Path,
    model: "PeftModel",
    tokenizer: "PreTrainedTokenizerBase",
    sft: "Selection",
    dpo: "Selection",
) -> dict[str, Any]:
    """Both phases, in place; the facts for the report."""
    from ratchet.registry.tracking import connect
    from ratchet.training.curves import MlflowCurve, ProgressBar
    from ratchet.training.policy import with_reference
    from ratchet.training.trainer import Objective, dpo_objective, sft_objective, train_phase

    settings = config.train_adapter
    pad_id = int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)
    facts = _describe(config, sft, dpo)
    client = connect(config, store)
    with _mlflow_run(client, config, scratch, facts) as run_id:

        def train(name: str, rows: list["Row"], objective: Objective, phase: Phase) -> list[dict[str, Any]]:
            if not rows:
                return []
            curve = train_phase(
                model,
                rows,
                objective,
                phase,
                folder=scratch / name,
                pad_id=pad_id,
                seed=config.seed,
                checkpoint_steps=settings.checkpoint_steps,
                device=settings.device,
                callbacks=[ProgressBar(name, phase.batch_rows), MlflowCurve(client, run_id, name)],
            )
            return [{"phase": name, **entry} for entry in curve]

        history = train("sft", sft.rows, sft_objective(), settings.sft)
        pairs = with_reference(
            model, dpo.rows, cache=scratch / "reference.safetensors", pad_id=pad_id, micro_rows=settings.dpo.micro_rows
        )
        history += train("dpo", pairs, dpo_objective(settings.beta), settings.dpo)
    return {**facts, "history": history, "mlflow_run_id": run_id}


def _describe(config: Config, sft: "Selection", dpo: "Selection") -> dict[str, Any]:
    from ratchet.training.losses import effective_sample_size

    phases = {"sft": (sft.rows, config.train_adapter.sft), "dpo": (dpo.rows, config.train_adapter.dpo)}
    return {
        "sft_rows": len(sft.rows),
        "dpo_pairs": len(dpo.rows),
        "skipped": [name for name, (rows, _) in phases.items() if not rows],
        "tokens": round(sum(row.num_tokens * phase.epochs for rows, phase in phases.values() for row in rows)),
        "effective_sample_size": {
            name: round(effective_sample_size([row.weight for row in rows]), 1) for name, (rows, _) in phases.items()
        },
    }


@contextmanager
def _mlflow_run(client: "MlflowClient", config: Config, scratch: Path, facts: dict[str, Any]) -> Iterator[str]:
    """One run a training: a resumed training goes on with the run that it began."""
    from ratchet.registry.tracking import experiment_id

    note = scratch / "mlflow_run_id"
    if note.exists():
        run_id = note.read_text()
        client.update_run(run_id, status="RUNNING")
    else:
        run_id = client.create_run(experiment_id(client, config), run_name="train_adapter").info.run_id
        aside = note.with_suffix(".aside")
        aside.write_text(run_id)
        aside.rename(note)
        _log_settings(client, run_id, config, facts)
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    client.set_terminated(run_id, "FINISHED")


def _log_settings(client: "MlflowClient", run_id: str, config: Config, facts: dict[str, Any]) -> None:
    settings = {"seed": config.seed, "base_model": config.base_model.model, **config.train_adapter.model_dump()}
    for name, value in _flat(settings):
        client.log_param(run_id, name, value)
    for name, size in facts["effective_sample_size"].items():
        client.log_metric(run_id, f"{name}/effective_sample_size", size)


def _flat(settings: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


STEP = Step(
    name="train_adapter",
    is_alone=True,
    run=run,
    inputs=("build_datasets",),
    reads=("seed", "base_model"),
    sources=lambda config, inputs, store: {"base": revision(config.base_model)},
)
