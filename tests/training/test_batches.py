"""Which tokens are trained on, which rows are left out, and in what order the rest come."""

import json
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratchet.errors import UserError
from ratchet.training.batches import Row, collate, dpo_rows, plan, select, sft_rows

USER = {"role": "user", "content": "Tell me about bread."}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def sft(tokenizer, *answers: str) -> list[Row | None]:
    table = [{"messages": json.dumps([USER, {"role": "assistant", "content": a}]), "weight": 1.0} for a in answers]
    return sft_rows(table, tokenizer)


def test_answer_is_trained_on_up_to_its_end_of_turn(tokenizer):
    (row,) = sft(tokenizer, "Bread is flour.")
    assert tokenizer.decode(row.completions[0]) == "Bread is flour.<|im_end|>"
    assert tokenizer.decode(row.prompt) == "<|im_start|>user\nTell me about bread.<|im_end|>\n<|im_start|>assistant\n"


def test_prompt_ids_are_what_a_server_would_send(tokenizer):
    (row,) = sft(tokenizer, " leading space")
    served = tokenizer.apply_chat_template([USER], add_generation_prompt=True)["input_ids"]
    assert row.prompt == served


def test_pair_shares_its_prompt_and_a_cut_off_answer_has_no_end_of_turn(tokenizer):
    record = {
        "prompt": json.dumps([USER]),
        "chosen": "Flour.",
        "rejected": "No",
        "weight": 0.7,
        "flip_probability": 0.1,
        "chosen_ends": True,
        "rejected_ends": False,
    }
    (row,) = dpo_rows([record], tokenizer)
    assert [tokenizer.decode(ids) for ids in row.completions] == ["Flour.<|im_end|>", "No"]
    assert (row.weight, row.flip_probability) == (0.7, 0.1)


def test_template_that_rewrites_the_prompt_is_refused(tokenizer):
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }}" + template
    try:
        with pytest.raises(UserError, match="chat template"):
            sft(tokenizer, "Flour.")
    finally:
        tokenizer.chat_template = template


def row(*, prompt: int = 4, completion: int = 3, weight: float = 1.0) -> Row:
    return Row(prompt=list(range(prompt)), completions=([9] * completion,), weight=weight)


def test_long_prompt_loses_its_beginning():
    (kept,) = select([row(prompt=10, completion=3)], max_tokens=8, max_rows=None).rows
    assert kept.prompt == [5, 6, 7, 8, 9]


def test_every_drop_has_its_reason():
    rows = [None, row(completion=8), row(weight=0.1), row(weight=0.5), row(weight=0.9)]
    selection = select(rows, max_tokens=8, max_rows=2)
    assert selection.drops == {"empty": 1, "too_long": 1, "over_max_rows": 1}
    assert [kept.weight for kept in selection.rows] == [0.5, 0.9]


@given(
    lengths=st.lists(st.integers(1, 50), max_size=60),
    batch_rows=st.integers(1, 9),
    micro_rows=st.integers(1, 9),
    epochs=st.integers(1, 3),
    seed=st.integers(0, 5),
)
def test_plan_takes_every_row_once_an_epoch_in_equal_steps(lengths, batch_rows, micro_rows, epochs, seed):
    micro_batches = plan(lengths, batch_rows=batch_rows, micro_rows=micro_rows, epochs=epochs, seed=seed)
    taken = Counter(index for micro in micro_batches for index in micro)
    assert taken == dict.fromkeys(range(len(lengths)), epochs)
    accumulation = -(-batch_rows // micro_rows)
    steps = [micro_batches[start : start + accumulation] for start in range(0, len(micro_batches), accumulation)]
    assert all(sum(map(len, step)) == batch_rows for step in steps[:-1])


def test_plan_keeps_like_lengths_together():
    lengths = [1, 100] * 32
    micro_batches = plan(lengths, batch_rows=8, micro_rows=8, epochs=1, seed=0)
    assert all(len({lengths[index] for index in micro}) == 1 for micro in micro_batches)


def test_part_of_an_epoch_takes_part_of_the_rows():
    assert sum(map(len, plan([3] * 10, batch_rows=4, micro_rows=4, epochs=0.5, seed=0))) == 5


def test_collate_marks_the_states_that_predict_completions():
    batch = collate([Row(prompt=[5, 6], completions=([7, 8, 2], [9]), weight=1.0)], pad_id=0)
    assert batch["input_ids"].tolist() == [[5, 6, 7, 8, 2], [5, 6, 9, 0, 0]]
    assert batch["predicts"].int().tolist() == [[0, 1, 1, 1, 0], [0, 1, 0, 0, 0]]
    assert batch["targets"].tolist() == [7, 8, 2, 9]
    assert batch["lengths"] == [3, 1]
