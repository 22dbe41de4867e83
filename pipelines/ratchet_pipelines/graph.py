"""The loop as data: which step feeds which. Every orchestrator builds its graph from this one."""

from ratchet.collection.collect_triplets import STEP as COLLECT_TRIPLETS
from ratchet.datasets.build_datasets import STEP as BUILD_DATASETS
from ratchet.evaluation.evaluate_adapter import STEP as EVALUATE_ADAPTER
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
