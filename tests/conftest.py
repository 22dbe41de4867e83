"""Fixtures that many tests share: a tiny real model, an empty lake."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No deadline: machines are noisy, and speed is the benchmarks' business. CI draws the same examples every time, so that
# a failure there can be had again; each run elsewhere draws others, and `make test-all` more of them.
settings.register_profile("quick", deadline=None, derandomize="CI" in os.environ)
settings.register_profile("thorough", deadline=None, max_examples=200)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

pytest_plugins = ["support.strict_skips"]

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer Llama with tokenizer and chat template."""
    from support import tiny_model

    return tiny_model.build(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def lake(tmp_path: Path):
    """An empty local store."""
    from ratchet.store import open_store

    return open_store(tmp_path / "lake")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real preference data beside the checkout; skips where it is absent."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"no real data beside the checkout: {SHARED / 'data'} is absent")
    return SHARED / "data"
