"""A dataset in MLflow: an input of the run that trained on it, named and known by its digest."""

import json
from typing import TYPE_CHECKING

from ratchet.manifest import Artifact
from ratchet.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient

MAX_DIGEST_CHARS = 36  # MLflow keeps no more


def log_dataset(client: "MlflowClient", run_id: str, dataset: Artifact, store: Store) -> None:
    """The run has the dataset as its training input, with where it is and, if there is one, its card."""
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
