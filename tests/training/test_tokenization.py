"""Which tokens are trained on, and which rows are left out."""

import json
from dataclasses import replace

import pytest

from ratchet.errors import UserError
from ratchet.training.tokenization import Selection, TokenizedRow, dpo_rows, hold_out, kto_rows, select, sft_rows

USER = {"role": "user", "content": "Tell me about bread."}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


def sft(tokenizer, *answers: str) -> list[TokenizedRow | None]:
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


def test_lone_vote_stands_beside_the_next_rows_answer(tokenizer):
    votes = [("Flour.", True), ("No", False), ("Bees.", True)]
    table = [{"prompt": json.dumps([USER]), "completion": a, "label": label, "weight": 1.0} for a, label in votes]
    rows = kto_rows(table, tokenizer)
    answers = [[tokenizer.decode(ids).removesuffix("<|im_end|>") for ids in row.completions] for row in rows]
    assert answers == [["Flour.", "No"], ["No", "Bees."], ["Bees.", "Flour."]]
    assert [row.is_good for row in rows] == [True, False, True]


def test_template_that_rewrites_the_prompt_is_refused(tokenizer):
    template = tokenizer.chat_template
    tokenizer.chat_template = "{{ messages | length }}" + template
    try:
        with pytest.raises(UserError, match="chat template"):
            sft(tokenizer, "Flour.")
    finally:
        tokenizer.chat_template = template


def row(*, prompt: int = 4, completion: int = 3, weight: float = 1.0) -> TokenizedRow:
    return TokenizedRow(prompt=list(range(prompt)), completions=([9] * completion,), weight=weight)


def test_long_prompt_loses_its_beginning():
    (kept,) = select([row(prompt=10, completion=3)], max_tokens=8, max_rows=None).rows
    assert kept.prompt == [5, 6, 7, 8, 9]


def test_every_drop_has_its_reason():
    rows = [None, row(completion=8), row(weight=0.1), row(weight=0.5), row(weight=0.9)]
    selection = select(rows, max_tokens=8, max_rows=2)
    assert selection.drops == {"empty": 1, "too_long": 1, "over_max_rows": 1}
    assert [kept.weight for kept in selection.rows] == [0.5, 0.9]


def test_replay_draws_from_the_lighter_rows_at_the_mean_weight():
    rows = [row(weight=weight) for weight in (0.1, 0.2, 0.3, 0.4, 0.6, 0.8)]
    selection = select(rows, max_tokens=8, max_rows=3, replay_share=0.4)
    heavy = [kept.weight for kept in selection.rows if kept.weight != pytest.approx(0.7)]
    assert (len(selection.rows), sorted(heavy), selection.drops) == (3, [0.6, 0.8], {"over_max_rows": 3})


def test_whole_groups_are_watched_and_not_trained_on():
    rows = [replace(row(prompt=n + 1), group=f"g{n // 3}") for n in range(12)]
    selection = hold_out(Selection(rows), share=0.25, seed=0)
    assert {one.group for one in selection.rows}.isdisjoint({one.group for one in selection.watched})
    assert (len(selection.rows), len(selection.watched), selection.drops) == (9, 3, {"watched": 3})
    assert hold_out(Selection(rows), share=0.0, seed=0) == Selection(rows)


def test_one_conversation_cannot_be_watched_and_trained_on():
    with pytest.raises(UserError, match=r"share = 0.2 of 1 conversations"):
        hold_out(Selection([row(), row()]), share=0.2, seed=0)
