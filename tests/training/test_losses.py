"""Losses and their gradients against hand-written references in float32."""

import pytest
import torch
from torch.nn.functional import log_softmax, logsigmoid

from ratchet.training.batches import Row, collate
from ratchet.training.fused_lora import fuse
from ratchet.training.losses import (
    CHUNK_TOKENS,
    dpo_loss,
    effective_sample_size,
    schedule,
    sequence_sums,
    sft_loss,
    token_log_probs,
)  # fmt: skip
from ratchet.training.policy import completion_log_probs

SFT = [
    Row(prompt=[1, 5, 9, 11], completions=([20, 21, 22, 2],), weight=1.0),
    Row(prompt=[1, 7], completions=([30, 2],), weight=0.25),
]
DPO = [
    Row(prompt=[1, 5, 9], completions=([20, 21, 2], [25, 2]), weight=1.0, flip_probability=0.2, reference=(-9.0, -7.0)),
    Row(prompt=[1, 7], completions=([30, 2], [31, 32, 33, 2]), weight=0.5, reference=(-6.0, -14.0)),
]


def grads(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def naive_sums(model, rows: list[Row]) -> torch.Tensor:
    """[rows, completions], one unpadded sequence at a time through the model's own logits."""
    table = []
    for row in rows:
        for completion in row.completions:
            ids = torch.tensor([row.prompt + completion])
            log_probs = log_softmax(model(ids).logits[0, :-1], -1)
            wanted = log_probs.gather(-1, ids[0, 1:, None]).squeeze(-1)
            table.append(wanted[len(row.prompt) - 1 :].sum())
    return torch.stack(table).view(len(rows), -1)


def test_token_log_probs_and_their_gradient_match_log_softmax_over_several_chunks():
    torch.manual_seed(0)
    num_tokens = 2 * CHUNK_TOKENS + 3
    head, targets, pull = torch.randn(50, 8), torch.randint(0, 50, (num_tokens,)), torch.randn(num_tokens)
    ours = torch.randn(num_tokens, 8, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    expected = log_softmax(theirs @ head.T, -1).gather(-1, targets[:, None]).squeeze(-1)
    actual = token_log_probs(ours, head, targets)
    torch.testing.assert_close(actual, expected)
    actual.backward(pull)
    expected.backward(pull)
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_padded_sft_batch_gives_the_loss_and_gradients_of_single_rows(adapted):
    ours, theirs = adapted()[0], adapted()[0]
    fuse(ours)
    batch = collate(SFT, pad_id=2)
    loss = sft_loss(completion_log_probs(ours, batch), batch["weights"])
    loss.backward()
    expected = -(naive_sums(theirs, SFT).squeeze(-1) * torch.tensor([1.0, 0.25])).sum()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads(ours), grads(theirs), rtol=1e-4, atol=1e-5)


def test_padded_dpo_batch_gives_the_weighted_loss_with_flips_and_its_gradients(adapted):
    ours, theirs = adapted()[0], adapted()[0]
    fuse(ours)
    batch = collate(DPO, pad_id=2)
    policy = sequence_sums(completion_log_probs(ours, batch)).view(-1, 2)
    loss = dpo_loss(policy, batch["reference"], batch["weights"], batch["flips"], beta=0.3)
    loss.backward()
    sums = naive_sums(theirs, DPO)
    margins = 0.3 * ((sums[:, 0] - sums[:, 1]) - torch.tensor([-2.0, 8.0]))
    first = 0.8 * -logsigmoid(margins[0]) + 0.2 * -logsigmoid(-margins[0])
    expected = first + 0.5 * -logsigmoid(margins[1])
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads(ours), grads(theirs), rtol=1e-4, atol=1e-5)


def test_fused_layers_take_a_bias_and_give_the_input_its_gradient():
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(6, 4)), LoraConfig(r=1, target_modules=["0"]))
    torch.nn.init.normal_(model.base_model.model[0].lora_B.default.weight)
    x = torch.randn(3, 5, 6, requires_grad=True)
    expected = model(x)
    (expected_grad,) = torch.autograd.grad(expected.square().sum(), x)
    fuse(model)
    actual = model(x)
    (actual_grad,) = torch.autograd.grad(actual.square().sum(), x)
    torch.testing.assert_close(actual, expected)
    torch.testing.assert_close(actual_grad, expected_grad)


def test_flip_probability_of_a_half_teaches_nothing():
    policy = torch.tensor([[0.3, 0.1]], requires_grad=True)
    flat = dpo_loss(policy, torch.tensor([[0.2, 0.0]]), torch.ones(1), torch.tensor([0.5]), beta=1.0)
    flat.backward()
    torch.testing.assert_close(policy.grad, torch.zeros(1, 2))


@pytest.mark.parametrize(("weights", "size"), [([1.0, 1.0, 1.0], 3.0), ([1.0, 0.0], 1.0), ([3.0, 1.0], 1.6), ([], 0.0)])
def test_effective_sample_size_is_kishs(weights, size):
    assert effective_sample_size(weights) == pytest.approx(size)


def test_schedule_rises_then_falls_and_never_idles():
    shares = [schedule(step, steps=10, warmup_steps=2) for step in range(10)]
    assert shares[0] < shares[1] < shares[2] == 1.0
    assert shares[2:] == sorted(shares[2:], reverse=True)
    assert min(shares) > 0
