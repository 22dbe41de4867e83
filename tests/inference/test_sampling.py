"""What is drawn, and its log-probabilities: transformers' own processors and forward pass say what is right."""

from typing import Any

import pytest
import torch
from transformers import LogitsProcessorList, TopKLogitsWarper, TopPLogitsWarper

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.inference.batching import GenerationRow, generate
from ratchet.inference.lora import MultiLoraModel
from ratchet.inference.sampling import TOP_K

PROMPT = "Why is the sky blue?"


@pytest.fixture(scope="module")
def loaded(config: Config) -> Any:
    return load_base(config.base_model)


def rows_of(loaded: Any, count: int = 1, **settings: Any) -> list[GenerationRow]:
    model, tokenizer = loaded
    prompt = tokenizer(PROMPT)["input_ids"]
    rows = [GenerationRow(prompt=prompt, **{"max_tokens": 1, "seed": seed, **settings}) for seed in range(count)]
    generate(MultiLoraModel(model), rows, frozenset(), batch_rows=count)
    return rows


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 0.5), (0.7, 0.9), (1.5, 0.0)])
def test_top_p_samples_what_transformers_leaves(loaded: Any, temperature: float, top_p: float) -> None:
    model, tokenizer = loaded
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer(PROMPT)["input_ids"]])).logits[:, -1]
    warpers = LogitsProcessorList([TopKLogitsWarper(TOP_K), TopPLogitsWarper(top_p)])
    expected = warpers(None, logits / temperature)[0].softmax(0)
    num_rows = 3000
    rows = rows_of(loaded, num_rows, temperature=temperature, top_p=top_p)
    counts = torch.bincount(torch.tensor([row.tokens[0] for row in rows]), minlength=len(expected))
    assert counts[expected == 0].sum() == 0
    common = expected * num_rows > 5
    chi_square = ((counts - expected * num_rows)[common] ** 2 / (expected * num_rows)[common]).sum()
    assert chi_square < common.sum() + 4 * (2 * common.sum()) ** 0.5


def test_logprobs_are_the_models_own_whatever_is_drawn(loaded: Any) -> None:
    model, _ = loaded
    settings = {"temperature": 1.3, "top_p": 0.9, "frequency_penalty": 0.5, "logit_bias": {7: 3.0}}
    for row in rows_of(loaded, 4, max_tokens=9, top_logprobs=5, **settings):
        tokens = [*row.prompt, *row.tokens]
        with torch.inference_mode():
            logprobs = model(torch.tensor([tokens])).logits[0].log_softmax(1)
        for place, said in enumerate(row.logprobs, start=len(row.prompt) - 1):
            assert said.token == tokens[place + 1]
            assert said.logprob == pytest.approx(float(logprobs[place, said.token]), abs=1e-4)
            best = logprobs[place].topk(5)
            assert [token for token, _ in said.likeliest] == best.indices.tolist()
            assert [logprob for _, logprob in said.likeliest] == pytest.approx(best.values.tolist(), abs=1e-4)
        assert len(row.logprobs) == len(row.tokens)


def test_logprobs_of_the_likeliest_are_given_to_those_who_ask(loaded: Any) -> None:
    [silent], [asking] = rows_of(loaded), rows_of(loaded, top_logprobs=0)
    assert silent.logprobs == []
    assert asking.logprobs[0].likeliest == []


@pytest.mark.parametrize(("frequency", "presence"), [(1.5, 0.0), (0.0, 2.0), (2.0, -0.5)])
def test_penalties_follow_openais_formula(loaded: Any, frequency: float, presence: float) -> None:
    """As documented: logits[j] - count[j] * frequency_penalty - (count[j] > 0) * presence_penalty."""
    model, _ = loaded
    settings = {"temperature": 0.0, "max_tokens": 60}
    [row] = rows_of(loaded, **settings, frequency_penalty=frequency, presence_penalty=presence)
    said: list[int] = []
    for token in row.tokens:
        with torch.inference_mode():
            logits = model(torch.tensor([[*row.prompt, *said]])).logits[0, -1]
        logits = logits.clone()
        for other in set(said):
            logits[other] = logits[other] - said.count(other) * frequency - presence
        assert token == int(logits.argmax())
        said.append(token)
    [free] = rows_of(loaded, **settings)
    assert row.tokens != free.tokens, "a penalty that changes nothing proves nothing"


def test_bias_bans_and_forces(loaded: Any) -> None:
    [free] = rows_of(loaded, temperature=0.0, max_tokens=8)
    [banned] = rows_of(loaded, temperature=0.0, max_tokens=8, logit_bias=dict.fromkeys(free.tokens, -100.0))
    assert not set(free.tokens) & set(banned.tokens)
    [forced] = rows_of(loaded, max_tokens=8, logit_bias={9: 100.0})
    assert forced.tokens == [9] * 8


def test_row_that_asks_for_more_changes_no_other(loaded: Any) -> None:
    model, tokenizer = loaded
    prompt = tokenizer(PROMPT)["input_ids"]

    def plain() -> GenerationRow:
        return GenerationRow(prompt=prompt, max_tokens=12, seed=5)

    alone, together = plain(), plain()
    generate(MultiLoraModel(model), [alone], frozenset())
    busy = GenerationRow(
        prompt=prompt, max_tokens=12, seed=6, top_p=0.3, presence_penalty=2.0, logit_bias={3: 50.0}, top_logprobs=3
    )
    generate(MultiLoraModel(model), [busy, together], frozenset())
    assert together.tokens == alone.tokens != busy.tokens
