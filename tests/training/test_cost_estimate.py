"""The plan before a training says what the training then does."""

import pytest

from ratchet.config import Config
from ratchet.training.batches import Layout
from ratchet.training.cost_estimate import estimate_cost, histogram, memory_mib
from ratchet.training.tokenization import Selection, TokenizedRow

ROWS = [TokenizedRow(prompt=[1] * 10, completions=([2] * 6, [3] * 4), weight=1.0) for _ in range(12)]


@pytest.fixture
def config(tiny_model) -> Config:
    return Config.model_validate(
        {"base_model": {"model": str(tiny_model)}, "train_adapter": {"dpo": {"batch_rows": 4, "epochs": 2}}}
    )


def test_forecast_counts_steps_tokens_and_how_full_the_passes_are(config):
    layout = Layout(packing="shared", pass_tokens=100, pad_id=0)
    told = estimate_cost(config, {"sft": Selection(), "dpo": Selection(ROWS)}, layout)["phases"]
    assert list(told) == ["dpo"]
    dpo = told["dpo"]
    assert (dpo["rows"], dpo["steps"], dpo["passes"]) == (12, 6, 6)
    assert (dpo["tokens"], dpo["computed_tokens"], dpo["padded_tokens"]) == (480, 480, 768)
    assert dpo["occupancy"] == 0.8
    assert dpo["effective_rows"] == 12


def test_padding_is_counted_as_computed(config):
    layout = Layout(packing="off", pass_tokens=1000, pad_id=0)
    told = estimate_cost(config, {"dpo": Selection(ROWS)}, layout)["phases"]["dpo"]
    assert told["computed_tokens"] == told["padded_tokens"] == 768


def test_lengths_are_counted_by_powers_of_two():
    assert histogram([3, 16, 17, 32, 33]) == {"<= 16": 2, "<= 32": 2, "<= 64": 1}


def test_memory_grows_with_the_pass(config):
    large = config.model_copy(update={"train_adapter": config.train_adapter.model_copy(update={"pass_tokens": 8192})})
    assert memory_mib(large) > 2 * memory_mib(config) > 0
