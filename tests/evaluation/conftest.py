"""A configuration on the tiny model, and two adapters of it."""

from pathlib import Path

import pytest

from ratchet.config import BaseModelSource, Config, EvaluateAdapter
from support import tiny_adapter


@pytest.fixture(scope="session")
def config(tiny_model: Path) -> Config:
    return Config(
        base_model=BaseModelSource(model=str(tiny_model), dtype="float32"),
        evaluate_adapter=EvaluateAdapter(max_new_tokens=6, threads=1, resamples=200),
    )


@pytest.fixture(scope="session")
def adapters(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("adapters")
    return tiny_adapter.build(folder / "one", config, seed=1), tiny_adapter.build(folder / "two", config, seed=2)
