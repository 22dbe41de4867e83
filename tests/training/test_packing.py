"""Packed rows see nothing of each other, and every form of attention gives the same log-probabilities."""

from dataclasses import replace

import pytest
import torch

from ratchet.config import TrainAdapter
from ratchet.errors import UserError
from ratchet.training import attention
from ratchet.training.batches import Layout, collate
from ratchet.training.log_probs import completion_log_probs
from ratchet.training.tokenization import TokenizedRow

ROWS = [
    TokenizedRow(prompt=[1, 5, 9, 11], completions=([20, 21, 22, 2], [23, 2]), weight=1.0),
    TokenizedRow(prompt=[1, 7], completions=([30, 2], [31, 32, 33, 2]), weight=1.0),
    TokenizedRow(prompt=[1, 7, 8], completions=([40, 41, 2], [42, 2]), weight=1.0),
]


def layout(packing: str) -> Layout:
    return Layout(packing=packing, pass_tokens=512, pad_id=2)


def log_probs(model, rows: list[TokenizedRow], packing: str = "shared") -> list[torch.Tensor]:
    with torch.no_grad():
        return list(completion_log_probs(model, collate(rows, layout(packing))))


@pytest.mark.parametrize("plain_tokens", [0, 256], ids=["fused", "plain"])
def test_another_pair_changes_no_bit_of_this_ones_numbers(plain_tokens, prepared, monkeypatch):
    monkeypatch.setattr(attention, "PLAIN_TOKENS", plain_tokens)
    model, _ = prepared()
    other = replace(ROWS[1], prompt=[50, 51], completions=([60, 61], [62, 63, 64, 65]))
    before, after = log_probs(model, ROWS), log_probs(model, [ROWS[0], other, ROWS[2]])
    for place in (0, 1, 4, 5):
        assert torch.equal(before[place], after[place])
    assert not torch.equal(before[2], after[2])


def test_rejected_answer_changes_nothing_of_the_chosen_one(prepared):
    model, _ = prepared()
    other = replace(ROWS[0], completions=(ROWS[0].completions[0], [70, 71]))
    before, after = log_probs(model, [ROWS[0]]), log_probs(model, [other])
    torch.testing.assert_close(before[0], after[0], rtol=0, atol=0)
    assert not torch.equal(before[1], after[1])


@pytest.mark.parametrize("plain_tokens", [0, 256], ids=["fused", "plain"])
@pytest.mark.parametrize("packing", ["shared", "separate"])
def test_packed_numbers_are_the_padded_ones(packing, plain_tokens, prepared, monkeypatch):
    monkeypatch.setattr(attention, "PLAIN_TOKENS", plain_tokens)
    model, _ = prepared()
    torch.testing.assert_close(log_probs(model, ROWS, packing), log_probs(model, ROWS, "off"), rtol=1e-5, atol=1e-5)


def test_flex_attention_is_given_the_same_mask():
    from torch.nn.attention.flex_attention import create_mask

    segments = collate(ROWS, layout("shared"))["segments"]
    block_mask = attention.flex_mask(segments, 128)
    assert block_mask.shape == (1, 1, 128, 128)
    dense = create_mask(block_mask.mask_mod, 1, 1, 128, 128, device="cpu")[0, 0]
    ours = torch.block_diag(*(mask == 0 for mask in attention.row_masks(segments, torch.float32)))
    assert torch.equal(dense[: len(ours), : len(ours)], ours.bool())
    assert not dense[len(ours) :, : len(ours)].any()


def test_sliding_window_shorter_than_the_rows_is_refused(adapted):
    base = adapted()[0].get_base_model()
    base.config.sliding_window = 64
    with pytest.raises(UserError, match="last 64 tokens"):
        attention.attend_by_row(base, TrainAdapter(max_tokens=65))
