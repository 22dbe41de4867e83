"""Step `register_adapter`: create one MLflow version per adapter digest, with its lineage and its offline verdict.

Exactly once: a run that was killed anywhere is completed by the next, which looks each object up by the adapter's
digest, and a version appears with all its tags at once or not at all.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.adapter_files import check_servable
from ratchet.config import Config
from ratchet.digest import canonical_json, digest_bytes
from ratchet.manifest import Artifact, StepOutput
from ratchet.needs import ENVIRONMENT_SECRET, MLFLOW, S3, Needs
from ratchet.registry.aliases import CHALLENGER, CHAMPION, aliases, set_alias, version_of
from ratchet.registry.mlflow_store import DATASET_DIGEST_CHARS, connect, experiment_id
from ratchet.step import Inputs, Step
from ratchet.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

FORCED = "gate.forced"
RECORDED_TAGS = (
    "adapter_digest",
    "adapter_uri",
    "base_model",
    "base_revision",
    "dataset_digest",
    "verdict",
    "verdict_uri",
)
CARD_TAGS = ("base_model", "base_revision", "chat_template_hash", "code_version")


@dataclass(frozen=True)
class RegistryEntry:
    """The content of one adapter's entry in the registry."""

    folder: Path
    tags: Mapping[str, str]
    dataset_uri: str
    verdict: Mapping[str, Any]
    is_forced: bool

    @property
    def asks_to_serve(self) -> bool:
        return self.verdict["verdict"] == "pass" or self.is_forced


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    """Register the adapter, and point the alias `challenger` at it if it may be released.

    Raises UserError for an adapter that could not be served.
    """
    entry = _entry(config, inputs, store)
    client, model = connect(config, store), config.registry.model
    version = version_of(client, model, entry.tags["adapter_digest"]) or _create(client, config, entry)
    _update_tags(client, version, entry)
    _point_challenger(client, model, str(version.version), entry.asks_to_serve)
    record = {
        "name": model,
        "version": str(version.version),
        "is_forced": entry.is_forced,
        **{name: entry.tags[name] for name in RECORDED_TAGS},
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
    check_servable(folder)
    card = json.loads((folder / "adapter.json").read_bytes())
    verdict = json.loads(store.read(verdict_file.uri))
    tags = {
        "adapter_digest": adapter.digest,
        "adapter_uri": adapter.uri,
        "dataset_digest": dataset.digest,
        "verdict": verdict["verdict"],
        "verdict_uri": verdict_file.uri,
        **{name: str(card[name]) for name in CARD_TAGS},
    }
    is_forced = config.release_adapter.force and verdict["verdict"] != "pass"
    return RegistryEntry(folder, tags, dataset.uri, verdict, is_forced)


def _create(client: "MlflowClient", config: Config, entry: RegistryEntry) -> "ModelVersion":
    """Create a version of the registered model; of two processes that create one each, the later deletes its own."""
    from mlflow.exceptions import MlflowException

    model, digest = config.registry.model, entry.tags["adapter_digest"]
    model_id = _logged_model(client, experiment_id(client, config), model, entry)
    try:
        client.create_registered_model(model, description="LoRA adapters that Ratchet trained from users' votes")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    created = client.create_model_version(
        model, f"models:/{model_id}", tags=dict(entry.tags), model_id=model_id, description=_description(entry)
    )
    oldest = version_of(client, model, digest)
    if oldest is not None and oldest.version != created.version:
        client.delete_model_version(model, str(created.version))
        return oldest
    return created


def _logged_model(client: "MlflowClient", experiment: str, name: str, entry: RegistryEntry) -> str:
    """Return the id of the LoggedModel with the adapter's files; complete an upload that a killed run began."""
    digest = entry.tags["adapter_digest"]
    existing = client.search_logged_models([experiment], f"tags.adapter_digest = '{digest}'")
    logged = (
        existing[0]
        if existing
        else client.create_logged_model(
            experiment,
            name=name,
            source_run_id=_log_run(client, experiment, entry),
            tags=dict(entry.tags),
            model_type="lora",
        )
    )
    if logged.status != "READY":
        client.log_model_artifacts(logged.model_id, str(entry.folder))
        client.finalize_logged_model(logged.model_id, "READY")
    return str(logged.model_id)


def _log_run(client: "MlflowClient", experiment: str, entry: RegistryEntry) -> str:
    """Log the evaluation's numbers and the dataset to the adapter's MLflow run; return its id."""
    from mlflow.entities import Dataset, DatasetInput, Metric

    digest = entry.tags["adapter_digest"]
    existing = client.search_runs([experiment], f"tags.adapter_digest = '{digest}' and tags.step = 'register_adapter'")
    run = (
        existing[0]
        if existing
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
    dataset = Dataset("dataset", entry.tags["dataset_digest"][:DATASET_DIGEST_CHARS], source_type="lake", source=source)
    client.log_batch(run_id, metrics=metrics)
    client.log_inputs(run_id, [DatasetInput(dataset)])
    client.set_terminated(run_id)
    return run_id


def _description(entry: RegistryEntry) -> str:
    tags, verdict = entry.tags, entry.verdict
    return (
        f"LoRA adapter {tags['adapter_digest'][:12]} on {tags['base_model']}, trained on dataset "
        f"{tags['dataset_digest'][:12]}. Offline verdict against {str(verdict['incumbent'])[:12]}: "
        f"{verdict['verdict']} ({verdict['why']})."
    )


def _update_tags(client: "MlflowClient", version: "ModelVersion", entry: RegistryEntry) -> None:
    """Bring the version's tags and description up to date: an adapter evaluated again carries its newest verdict."""
    forced = {FORCED: "true"} if entry.is_forced else {}
    changed = {name: value for name, value in {**entry.tags, **forced}.items() if version.tags.get(name) != value}
    for name, value in changed.items():
        client.set_model_version_tag(version.name, str(version.version), name, value)
    if changed:
        client.update_model_version(version.name, str(version.version), description=_description(entry))


def _point_challenger(client: "MlflowClient", model: str, version: str, asks_to_serve: bool) -> None:
    """Set the alias `challenger` on the version if it asks to serve; take the alias away from it if not."""
    holders = aliases(client, model)
    if asks_to_serve and holders.get(CHAMPION) != version:
        set_alias(client, client, model, CHALLENGER, version, expected=holders.get(CHALLENGER))
    elif holders.get(CHALLENGER) == version:
        client.delete_registered_model_alias(model, CHALLENGER)


STEP = Step(
    name="register_adapter",
    run=run,
    inputs=("build_datasets", "train_adapter", "evaluate_adapter"),
    sources=lambda config, inputs, store: {
        "force": str(config.release_adapter.force).lower(),
        "model": config.registry.model,
    },
    needs=Needs(secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW)}),
)
