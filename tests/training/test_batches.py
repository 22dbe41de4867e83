"""In what order rows come, which share a forward pass, and how they lie in it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.training.batches import Layout, collate, first_passes, num_computed, passes, plan
from ratchet.training.tokenization import TokenizedRow

PACKINGS = ["shared", "separate", "off"]
PAIR = TokenizedRow(prompt=[5, 6], completions=([7, 8, 2], [9]), weight=1.0)
LONE = TokenizedRow(prompt=[4], completions=([3, 2],), weight=1.0)


def layout(packing: str, pass_tokens: int = 64, multiple: int = 1) -> Layout:
    return Layout(packing=packing, pass_tokens=pass_tokens, pad_id=0, multiple=multiple)


def rows_of(lengths: list[int]) -> list[TokenizedRow]:
    return [TokenizedRow(prompt=[1] * length, completions=([2], [3]), weight=1.0) for length in lengths]


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    batch_rows=st.integers(1, 9),
    pass_tokens=st.integers(1, 200),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
    packing=st.sampled_from(PACKINGS),
)
def test_plan_takes_every_row_once_an_epoch_in_equal_steps(lengths, batch_rows, pass_tokens, epochs, seed, packing):
    how = layout(packing, pass_tokens)
    steps = plan(rows_of(lengths), batch_rows=batch_rows, epochs=epochs, seed=seed, layout=how)
    taken = Counter(index for step in steps for chosen in step for index in chosen)
    assert taken == dict.fromkeys(range(len(lengths)), epochs)
    assert all(sum(map(len, step)) == batch_rows for step in steps[:-1])


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=60), packing=st.sampled_from(PACKINGS))
def test_no_pass_exceeds_its_tokens_unless_a_row_does_alone(lengths, packing):
    rows = rows_of(lengths)
    how = layout(packing, pass_tokens=70)
    for chosen in passes(rows, how):
        batch = collate([rows[index] for index in chosen], how)
        assert batch["input_ids"].numel() <= 70 or len(chosen) == 1


def test_packed_steps_are_drawn_whatever_their_lengths():
    steps = plan(rows_of([1, 50] * 32), batch_rows=8, epochs=1, seed=0, layout=layout("shared"))
    assert any(len({index % 2 for chosen in step for index in chosen}) == 2 for step in steps)


def test_padded_steps_keep_like_lengths_together():
    steps = plan(rows_of([1, 50] * 32), batch_rows=8, epochs=1, seed=0, layout=layout("off", pass_tokens=10_000))
    assert all(len({index % 2 for index in chosen}) == 1 for step in steps for chosen in step)


def test_part_of_an_epoch_takes_part_of_the_rows():
    steps = plan(rows_of([3] * 10), batch_rows=4, epochs=0.5, seed=0, layout=layout("shared"))
    assert sum(len(chosen) for step in steps for chosen in step) == 5


def test_packed_rows_stand_in_one_line_and_a_pair_shares_its_prompt():
    batch = collate([PAIR, LONE], layout("shared"))
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2, 9, 4, 3, 2]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 4, 2, 0, 1, 2]]
    assert [segments.tolist() for segments in batch["segments"]] == [[0, 0, 1, 1, 1, 2], [0, 1, 1]]
    assert batch["predicts"].tolist() == [1, 2, 3, 1, 6, 7]
    assert batch["targets"].tolist() == [7, 8, 2, 9, 3, 2]
    assert batch["lengths"] == [3, 1, 2]


def test_padded_rows_have_a_line_for_each_completion():
    batch = collate([PAIR], layout("off"))
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2], [5, 6, 9, 0, 0]]
    assert batch["predicts"].tolist() == [1, 2, 3, 6]
    assert batch["segments"] == []


def test_separate_completions_each_have_their_own_prompt():
    batch = collate([PAIR], layout("separate"))
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2, 5, 6, 9]]
    assert [segments.tolist() for segments in batch["segments"]] == [[0, 0, 1, 1, 1], [0, 0, 1]]


def test_line_is_padded_to_whole_blocks():
    assert collate([PAIR, LONE], layout("shared", multiple=8))["input_ids"].shape == (1, 16)


@pytest.mark.parametrize(("packing", "num_tokens"), [("shared", 6), ("separate", 8), ("off", 10)])
def test_shared_prompts_are_computed_once(packing, num_tokens):
    assert num_computed(PAIR, packing) == collate([PAIR], layout(packing))["input_ids"].numel() == num_tokens


@pytest.mark.parametrize("epochs", [0.5, 1, 3])
def test_first_passes_are_those_in_which_rows_have_their_first_turn(epochs: float):
    rows, how = rows_of([*range(2, 40)]), layout("shared")
    steps = plan(rows, batch_rows=4, epochs=epochs, seed=1, layout=how)
    first, every = first_passes(steps), [chosen for step in steps for chosen in step]
    assert {index for chosen in first for index in chosen} == {index for chosen in every for index in chosen}
    assert first == every[: len(first)] or epochs > 1
    assert len(first) <= len(every) / max(1, epochs - 0.5)
