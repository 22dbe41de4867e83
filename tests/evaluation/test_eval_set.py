"""Training text in answers."""

import json
from pathlib import Path

import polars as pl
import pytest

from ratchet.evaluation.eval_set import seen_in_training

SECRET = "My  neighbour Ann keeps the spare key, under the blue pot!"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    chat = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": f"Well.\n{SECRET} So there."}]
    pl.DataFrame({"messages": [json.dumps(chat)]}).write_parquet(tmp_path / "sft-train.parquet")
    pl.DataFrame({"chosen": ["one two three four five six seven eight nine"]}).write_parquet(
        tmp_path / "dpo-train.parquet"
    )
    return tmp_path


def test_runs_of_eight_words_are_found_whatever_their_case_and_punctuation(dataset: Path) -> None:
    said = "I know: my neighbour Ann keeps the spare KEY under the blue pot."
    found = seen_in_training(dataset, [said, "two three four five six seven eight nine ten"])
    assert "my neighbour ann keeps the spare key under" in found
    assert "two three four five six seven eight nine" in found
    assert len(found) == 5


@pytest.mark.parametrize(
    "said", ["my neighbour ann keeps the spare key", "", "xone two three four five six seven eight"]
)
def test_shorter_runs_and_parts_of_words_are_not(dataset: Path, said: str) -> None:
    assert seen_in_training(dataset, [said]) == frozenset()


def test_a_prompt_asks_for_nothing(dataset: Path) -> None:
    """Words in the prompt are not found: a prompt's text is looked up in training answers, not in prompts."""
    assert seen_in_training(dataset, ["Where? Where? Where? Where? Where? Where? Where? Where?"]) == frozenset()
