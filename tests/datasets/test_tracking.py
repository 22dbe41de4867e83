import json

from ratchet.config import Config
from ratchet.datasets.tracking import log_dataset
from ratchet.manifest import Artifact
from ratchet.registry.mlflow_store import connect, experiment_id


def test_run_has_the_dataset_and_its_card(lake):
    client = connect(Config(), lake)
    run_id = client.create_run(experiment_id(client, Config())).info.run_id
    lake.create("datasets/d/card.md", b"# Dataset card\n")
    log_dataset(client, run_id, Artifact(uri="datasets/d", digest="d" * 64, rows=7), lake)
    (found,) = client.get_run(run_id).inputs.dataset_inputs
    assert found.dataset.digest == "d" * 36
    assert json.loads(found.dataset.source) == {"uri": f"{lake.root}/datasets/d", "digest": "d" * 64}
    assert [file.path for file in client.list_artifacts(run_id, "dataset")] == ["dataset/card.md"]
