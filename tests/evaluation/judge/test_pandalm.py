"""Calibration on PandaLM's three annotators."""

import json
from pathlib import Path

import pytest

from ratchet.errors import UserError
from ratchet.evaluation.judge.pairwise import PairOutcome
from ratchet.evaluation.judge.pandalm import majority, measure, read_panel


def row(*labels: int) -> dict[str, object]:
    votes = {f"annotator{number}": label for number, label in enumerate(labels, 1)}
    return {"instruction": "Say hello.", "input": "", "response1": "Hello.", "response2": "Go away.", **votes}


def test_majority_of_three_or_a_tie(tmp_path: Path) -> None:
    path = tmp_path / "panel.json"
    path.write_text(json.dumps([row(1, 1, 2), row(2, 2, 2), row(0, 1, 2), row(0, 0, 1)]))
    panel = read_panel(path, limit=3)
    assert majority(panel) == [1.0, 0.0, 0.5]
    assert panel.marks["annotator3"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("text", ["[{}]", "{", json.dumps([row(1, 2, 3)])])
def test_what_is_no_panel_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "panel.json"
    path.write_text(text)
    with pytest.raises(UserError, match="is no PandaLM test set"):
        read_panel(path, limit=9)


def test_real_annotators_agree_with_each_other_and_with_their_majority(shared_data: Path) -> None:
    panel = read_panel(shared_data / "pandalm-testset-v1.json", limit=2000)
    found = measure(panel, [PairOutcome(mark) for mark in majority(panel)], seed=0)
    assert found["judge, majority"].kappa == 1.0
    for names in ("annotator1, annotator2", "annotator1, annotator3", "annotator2, annotator3"):
        assert 0.8 < found[names].kappa_low < found[names].kappa < 0.95
        assert found[names].n == 999


def test_a_judge_that_prefers_the_longer_answer_is_shown_for_what_it_is(shared_data: Path) -> None:
    panel = read_panel(shared_data / "pandalm-testset-v1.json", limit=2000)
    longer = [PairOutcome(1.0 if len(one.ours) > len(one.theirs) else 0.0) for one in panel.pairs]
    assert measure(panel, longer, seed=0)["judge, majority"].kappa_low < 0.3
