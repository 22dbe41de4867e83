"""Step `register_adapter`: one MLflow version for each adapter digest, with its lineage and its offline verdict.

Killed anywhere, it is finished by the next run: what it makes is found again by the adapter's digest, and a version
appears with all its tags at once or not at all.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.config import Config
from ratchet.digest import canonical_json, digest_bytes
from ratchet.manifest import Artifact, StepOutput
from ratchet.registry.aliases import CHALLENGER, CHAMPION, aliases, set_alias, version_of
from ratchet.registry.mlflow_store import connect, experiment_id
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FORCED = "gate.forced"
DIGEST_CHARS = 36  # all that MLflow keeps of a dataset's digest


@dataclass(frozen=True)
class RegistryEntry:
    """What the registry is to say about one adapter."""

    folder: Path
    tags: Mapping[str, str]
    dataset_uri: str
    verdict: Mapping[str, Any]
    is_forced: bool

    @property
    def asks_to_serve(self) -> bool:
        return self.verdict["verdict"] == "pass" or self.is_forced


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    entry = _entry(config, inputs, store)
    client, model = connect(config, store), config.registry.model
    version = version_of(client, model, entry.tags["adapter_digest"]) or _create(client, config, entry)
    _update_tags(client, version, entry)
    _point_challenger(client, model, str(version.version), entry.asks_to_serve)
    told = ("adapter_digest", "adapter_uri", "base_model", "base_revision", "dataset_digest", "verdict", "verdict_uri")
    record = {
        "name": model,
        "version": str(version.version),
        "is_forced": entry.is_forced,
        **{name: entry.tags[name] for name in told},
    }
    data = canonical_json(record)
    digest = digest_bytes(data)
    uri = f"registry/{digest}/version.json"
    store.create_if_absent(uri, data)
    return StepOutput(
        outputs={"version": Artifact(uri=uri, digest=digest)},
        facts={**record, "is_challenger": aliases(client, model).get(CHALLENGER) == str(version.version)},
    )


def _entry(config: Config, inputs: Inputs, store: Store) -> RegistryEntry:
    adapter = inputs["train_adapter"].outputs["adapter"]
    verdict_file = inputs["evaluate_adapter"].outputs["verdict"]
    dataset = inputs["build_datasets"].outputs["dataset"]
    folder = store.local(adapter.uri)
    card = json.loads((folder / "adapter.json").read_bytes())
    verdict = json.loads(store.read(verdict_file.uri))
    copied = ("base_model", "base_revision", "chat_template_hash", "code_version")
    tags = {
        "adapter_digest": adapter.digest,
        "adapter_uri": adapter.uri,
        "dataset_digest": dataset.digest,
        "verdict": verdict["verdict"],
        "verdict_uri": verdict_file.uri,
        **{name: str(card[name]) for name in copied},
    }
    is_forced = config.release_adapter.force and verdict["verdict"] != "pass"
    return RegistryEntry(folder, tags, dataset.uri, verdict, is_forced)


def _create(client: "MlflowClient", config: Config, entry: RegistryEntry) -> "ModelVersion":
    """A new version of the registered model. Where two processes create one, the younger is taken back."""
    from mlflow.exceptions import MlflowException

    model, digest = config.registry.model, entry.tags["adapter_digest"]
    model_id = _logged_model(client, experiment_id(client, config), model, entry)
    try:
        client.create_registered_model(model, description="LoRA adapters that Ratchet trained from users' votes")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    made = client.create_model_version(
        model, f"models:/{model_id}", tags=dict(entry.tags), model_id=model_id, description=_describe(entry)
    )
    oldest = version_of(client, model, digest)
    if oldest is not None and oldest.version != made.version:
        client.delete_model_version(model, str(made.version))
        return oldest
    return made


def _logged_model(client: "MlflowClient", experiment: str, name: str, entry: RegistryEntry) -> str:
    """The id of the LoggedModel with the adapter's files; one that a killed run left half-uploaded is completed."""
    digest = entry.tags["adapter_digest"]
    found = client.search_logged_models([experiment], f"tags.adapter_digest = '{digest}'")
    logged = (
        found[0]
        if found
        else client.create_logged_model(
            experiment,
            name=name,
            source_run_id=_run(client, experiment, entry),
            tags=dict(entry.tags),
            model_type="lora",
        )
    )
    if logged.status != "READY":
        client.log_model_artifacts(logged.model_id, str(entry.folder))
        client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _run(client: "MlflowClient", experiment: str, entry: RegistryEntry) -> str:
    """The id of the MLflow run that shows the evaluation's numbers and names the dataset."""
    from mlflow.entities import Dataset, DatasetInput, Metric

    digest = entry.tags["adapter_digest"]
    found = client.search_runs([experiment], f"tags.adapter_digest = '{digest}' and tags.step = 'register_adapter'")
    run = (
        found[0]
        if found
        else client.create_run(
            experiment, tags={**entry.tags, "step": "register_adapter"}, run_name=f"evaluate-{digest[:12]}"
        )
    )
    run_id = str(run.info.run_id)
    now_ms = int(time.time() * 1000)
    metrics = [
        Metric(f"{check['name']}/{side}", float(check[side]), now_ms, 0)
        for check in entry.verdict["checks"]
        for side in ("candidate", "incumbent", "difference")
    ]
    source = json.dumps({"uri": entry.dataset_uri})
    dataset = Dataset("dataset", entry.tags["dataset_digest"][:DIGEST_CHARS], source_type="lake", source=source)
    client.log_batch(run_id, metrics=metrics)
    client.log_inputs(run_id, [DatasetInput(dataset)])
    client.set_terminated(run_id)
    return run_id


def _describe(entry: RegistryEntry) -> str:
    tags, verdict = entry.tags, entry.verdict
    return (
        f"LoRA adapter {tags['adapter_digest'][:12]} on {tags['base_model']}, trained on dataset "
        f"{tags['dataset_digest'][:12]}. Offline verdict against {str(verdict['incumbent'])[:12]}: "
        f"{verdict['verdict']} ({verdict['why']})."
    )


def _update_tags(client: "MlflowClient", version: "ModelVersion", entry: RegistryEntry) -> None:
    """A version that is evaluated again carries its newest verdict."""
    forced = {FORCED: "true"} if entry.is_forced else {}
    changed = {name: value for name, value in {**entry.tags, **forced}.items() if version.tags.get(name) != value}
    for name, value in changed.items():
        client.set_model_version_tag(version.name, str(version.version), name, value)
    if changed:
        client.update_model_version(version.name, str(version.version), description=_describe(entry))


def _point_challenger(client: "MlflowClient", model: str, version: str, asks_to_serve: bool) -> None:
    holders = aliases(client, model)
    if asks_to_serve and holders.get(CHAMPION) != version:
        set_alias(client, model, CHALLENGER, version, expected=holders.get(CHALLENGER))
    elif holders.get(CHALLENGER) == version:
        client.delete_registered_model_alias(model, CHALLENGER)


def _sources(config: Config, inputs: Inputs, store: Store) -> Mapping[str, str]:
    return {"force": str(config.release_adapter.force).lower(), "model": config.registry.model}


STEP = Step(
    name="register_adapter",
    run=run,
    inputs=("build_datasets", "train_adapter", "evaluate_adapter"),
    sources=_sources,
)
