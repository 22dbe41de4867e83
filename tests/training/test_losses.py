"""Losses and their gradients against hand-written references in float32."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import log_softmax, logsigmoid

from ratchet.training.batches import Layout, collate
from ratchet.training.fused_lora import fuse
from ratchet.training.log_probs import completion_log_probs
from ratchet.training.losses import (
    CHUNK_TOKENS,
    dpo_loss,
    drift_estimate,
    effective_sample_size,
    mean_entropy,
    normalized,
    schedule,
    token_log_probs,
)
from ratchet.training.objectives import dpo_objective, kto_objective, sft_objective
from ratchet.training.tokenization import TokenizedRow

SFT = [
    TokenizedRow(prompt=[1, 5, 9, 11], completions=([20, 21, 22, 2],), weight=1.0),
    TokenizedRow(prompt=[1, 7], completions=([30, 2],), weight=0.25),
]
DPO = [
    TokenizedRow(
        prompt=[1, 5, 9], completions=([20, 21, 2], [25, 2]), weight=1.0, flip_probability=0.2, reference=(-9.0, -7.0)
    ),
    TokenizedRow(prompt=[1, 7], completions=([30, 2], [31, 32, 33, 2]), weight=0.5, reference=(-6.0, -14.0)),
]

KTO = [replace(DPO[0], flip_probability=0.0, reference=(-9.0, -70.0)), replace(DPO[1], is_good=False)]
PACKINGS = pytest.mark.parametrize("packing", ["shared", "separate", "off"])


@pytest.fixture
def models(prepared, adapted) -> tuple:
    """Ours, and PEFT's own."""
    return prepared()[0], adapted()[0]


def grads(model) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}


def naive_sums(model, rows: list[TokenizedRow]) -> torch.Tensor:
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


def ours_and_naive(models, rows, objective, packing, expected) -> None:
    """Loss and gradients of a batch are those of a formula on rows that are computed one by one."""
    ours, theirs = models
    batch = collate(rows, Layout(packing=packing, pass_tokens=0, pad_id=2))
    loss = objective.loss(completion_log_probs(ours, batch), batch)
    loss.backward()
    wanted = expected(naive_sums(theirs, rows))
    wanted.backward()
    torch.testing.assert_close(loss, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(grads(ours), grads(theirs), rtol=1e-4, atol=1e-5)


@PACKINGS
def test_sft_gives_the_loss_and_gradients_of_single_rows(packing, models):
    weights = torch.tensor([1.0, 0.25])
    ours_and_naive(models, SFT, sft_objective(), packing, lambda sums: -(sums.squeeze(-1) * weights).sum())


@PACKINGS
@pytest.mark.parametrize("kind", ["sigmoid", "sigmoid_norm", "ipo"])
def test_pairs_give_the_weighted_loss_with_flips_and_its_gradients(kind, packing, models):
    lengths = torch.tensor([[3, 2], [2, 4]]) if kind != "sigmoid" else torch.ones(2, 2)

    def single(margin):
        return (margin - 1 / 0.6) ** 2 if kind == "ipo" else -logsigmoid(0.3 * margin)

    def expected(sums):
        gains = (sums - torch.tensor([[-9.0, -7.0], [-6.0, -14.0]])) / lengths
        margins = gains[:, 0] - gains[:, 1]
        first = 0.8 * single(margins[0]) + 0.2 * single(-margins[0])
        return first + 0.5 * single(margins[1])

    ours_and_naive(models, DPO, dpo_objective(kind, beta=0.3), packing, expected)


@PACKINGS
def test_lone_votes_give_the_weighted_loss_and_its_gradients(packing, models):
    def expected(sums):
        gains = sums - torch.tensor([[-9.0, -70.0], [-6.0, -14.0]])
        drift = gains[:, 1].detach().mean().clamp(min=0)
        assert drift > 0
        liked, disliked = gains[:, 0]
        return 1.0 * (1 - torch.sigmoid(0.3 * (liked - drift))) + 0.5 * (1 - torch.sigmoid(0.3 * (drift - disliked)))

    ours_and_naive(models, KTO, kto_objective(beta=0.3), packing, expected)


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
    margins = torch.zeros(1, requires_grad=True)
    dpo_loss(margins, torch.ones(1), torch.tensor([0.5]), "sigmoid", beta=1.0).backward()
    torch.testing.assert_close(margins.grad, torch.zeros(1))


def test_drift_is_never_negative_and_takes_no_gradient():
    gains = torch.tensor([-3.0, 1.0], requires_grad=True)
    assert drift_estimate(gains) == 0
    assert not drift_estimate(-gains).requires_grad


def test_weights_are_scaled_to_mean_one():
    assert normalized([1.0, 3.0]) == [0.5, 1.5]
    assert normalized([]) == []


@pytest.mark.parametrize(("weights", "size"), [([1.0, 1.0, 1.0], 3.0), ([1.0, 0.0], 1.0), ([3.0, 1.0], 1.6), ([], 0.0)])
def test_effective_sample_size_is_kishs(weights, size):
    assert effective_sample_size(weights) == pytest.approx(size)


def test_schedule_rises_then_falls_and_never_idles():
    shares = [schedule(step, steps=10, warmup_steps=2) for step in range(10)]
    assert shares[0] < shares[1] < shares[2] == 1.0
    assert shares[2:] == sorted(shares[2:], reverse=True)
    assert min(shares) > 0


def test_entropy_is_that_of_the_models_distributions():
    torch.manual_seed(0)
    states, head = torch.randn(5, 8), torch.randn(30, 8)
    expected = torch.distributions.Categorical(logits=states @ head.T).entropy().mean()
    torch.testing.assert_close(mean_entropy(states, head), expected)
