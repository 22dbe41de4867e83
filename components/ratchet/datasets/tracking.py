"""Log a dataset to MLflow, as an input of the run that trained on it, identified by its digest."""

import json
from typing import TYPE_CHECKING

from ratchet.manifest import Artifact
from ratchet.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_DIGEST_CHARS = 36  # MLflow's limit


def log_dataset(client: "MlflowClient", run_id: str, dataset: Artifact, store: Store) -> None:
    """Log the dataset as the run's training input, with its URI and, if it has one, its card."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    card = f"{dataset.uri}/card.md"
    known = Dataset(
        name="ratchet",
        digest=dataset.digest[:MAX_DIGEST_CHARS],
        source_type="s3" if store.root.startswith("s3://") else "local",
        source=json.dumps({"uri": f"{store.root}/{dataset.uri}", "digest": dataset.digest}),
        profile=json.dumps({"rows": dataset.rows}),
    )
    client.log_inputs(run_id, [DatasetInput(known, [InputTag("mlflow.data.context", "training")])])
    if store.exists(card):
        client.log_text(run_id, store.read(card).decode(), "dataset/card.md")
