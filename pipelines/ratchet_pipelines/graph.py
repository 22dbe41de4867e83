"""The loop as data: which step feeds which, and what each needs. Every orchestrator builds its graph from this one."""

import json
from collections.abc import Mapping

from ratchet.collection.collect_triplets import STEP as COLLECT_TRIPLETS
from ratchet.datasets.build_datasets import STEP as BUILD_DATASETS
from ratchet.evaluation.evaluate_adapter import STEP as EVALUATE_ADAPTER
from ratchet.needs import (
    CONFIG_FOLDER,
    CONFIG_MAP,
    ENVIRONMENT_SECRET,
    GATE,
    GATE_SECRET,
    GIT,
    GIT_SECRET,
    MINUTE_S,
    MLFLOW,
    RELEASE_ACCOUNT,
    S3,
    STEP_ACCOUNT,
    USER_ID,
    Needs,
)
from ratchet.registry.register_adapter import STEP as REGISTER_ADAPTER
from ratchet.release.release_adapter import STEP as RELEASE_ADAPTER
from ratchet.step import Step
from ratchet.training.train_adapter import STEP as TRAIN_ADAPTER
from ratchet.validation.validate_triplets import STEP as VALIDATE_TRIPLETS

STEPS: tuple[Step, ...] = (
    COLLECT_TRIPLETS,
    VALIDATE_TRIPLETS,
    BUILD_DATASETS,
    TRAIN_ADAPTER,
    EVALUATE_ADAPTER,
    REGISTER_ADAPTER,
    RELEASE_ADAPTER,
)
BY_NAME = {step.name: step for step in STEPS}

NEEDS: Mapping[str, Needs] = {
    **{step.name: step.needs for step in STEPS},
    "drift": Needs(cpu="2", memory="8Gi", ephemeral_storage="20Gi"),
    "reconcile": Needs(
        timeout_s=15 * MINUTE_S,
        secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW), GIT_SECRET: GIT, GATE_SECRET: GATE},
        service_account=RELEASE_ACCOUNT,
    ),
    "approve": Needs(memory="1Gi", timeout_s=15 * MINUTE_S, service_account=RELEASE_ACCOUNT),
    "report": Needs(),
    "notify": Needs(
        cpu="100m",
        memory="256Mi",
        ephemeral_storage="100Mi",
        timeout_s=5 * MINUTE_S,
        secrets={ENVIRONMENT_SECRET: ("RATCHET_NOTIFY_URL",)},
    ),
}
"""Needs of the steps and of the other commands that orchestrators run."""


def needs_json() -> str:
    """What Airflow's environment reads in place of this package: the names and needs of its pods, as JSON."""
    table = {
        "config_folder": CONFIG_FOLDER,
        "config_map": CONFIG_MAP,
        "user_id": USER_ID,
        "accounts": {"steps": STEP_ACCOUNT, "release": RELEASE_ACCOUNT},
        "secrets": {"environment": ENVIRONMENT_SECRET, "git": GIT_SECRET, "gate": GATE_SECRET},
        "commands": {name: needs.to_json() for name, needs in NEEDS.items()},
    }
    return json.dumps(table, indent=1) + "\n"
