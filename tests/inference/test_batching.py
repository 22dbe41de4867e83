from pathlib import Path
from typing import Any

import pytest
import torch

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.inference.batching import DecodingBatch, GenerationRow, generate, stop_tokens
from ratchet.inference.lora import MultiLoraModel
from ratchet.inference.sampling import TOP_K

QUESTIONS = ["Why is the sky blue?", "Bread?", "How do bees make honey? They collect nectar.", "Tell me about France."]


@pytest.fixture(scope="module")
def loaded(config: Config) -> Any:
    return load_base(config.base_model)


@pytest.fixture(scope="module")
def mixed(config: Config, adapters: dict[str, Path]) -> Any:
    lora = MultiLoraModel(load_base(config.base_model)[0])
    for name, folder in adapters.items():
        lora.load(folder, name)
    return lora


def prompts(tokenizer: Any) -> list[list[int]]:
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    return [tokenizer.apply_chat_template(chat, add_generation_prompt=True)["input_ids"] for chat in chats]


def test_greedy_rows_of_all_lengths_say_what_transformers_says(loaded: Any) -> None:
    model, tokenizer = loaded
    rows = [
        GenerationRow(prompt=prompt, max_tokens=limit, temperature=0)
        for limit in (3, 17)
        for prompt in prompts(tokenizer)
    ]
    generate(MultiLoraModel(model), rows, stop_tokens(model, tokenizer), batch_rows=5)
    for row in rows:
        expected = model.generate(
            torch.tensor([row.prompt]),
            attention_mask=torch.ones(1, len(row.prompt)),
            do_sample=False,
            max_new_tokens=row.max_tokens,
        )
        assert row.tokens == expected[0, len(row.prompt) :].tolist()
    assert len({tuple(row.tokens) for row in rows}) > 3, "rows that all say the same prove nothing"


def test_adapters_in_one_batch_say_what_each_says_alone(mixed: Any, loaded: Any) -> None:
    tokenizer = loaded[1]
    names = [None, "left", "right"]
    prompt = prompts(tokenizer)[0]

    def rows() -> list[GenerationRow]:
        return [GenerationRow(prompt=prompt, max_tokens=12, adapter=name, temperature=0) for name in names]

    together, alone = rows(), rows()
    generate(mixed, together, frozenset())
    for row in alone:
        generate(mixed, [row], frozenset())
    assert [row.tokens for row in together] == [row.tokens for row in alone]
    assert len({tuple(row.tokens) for row in alone}) == len(names)


def test_rows_without_adapter_are_the_base_model_even_when_one_is_loaded(mixed: Any, loaded: Any) -> None:
    model, tokenizer = loaded
    plain, wrapped = (GenerationRow(prompt=prompts(tokenizer)[0], max_tokens=12, temperature=0) for _ in range(2))
    generate(MultiLoraModel(model), [plain], frozenset())
    generate(mixed, [wrapped], frozenset())
    assert plain.tokens == wrapped.tokens


def test_seed_fixes_the_answer_in_any_company(loaded: Any) -> None:
    model, tokenizer = loaded
    ask = prompts(tokenizer)
    alone, again, other = (GenerationRow(prompt=ask[0], max_tokens=12, seed=seed) for seed in (1, 1, 2))
    generate(MultiLoraModel(model), [alone], frozenset())
    generate(MultiLoraModel(model), [GenerationRow(prompt=ask[2], max_tokens=20, seed=7), again, other], frozenset())
    assert alone.tokens == again.tokens != other.tokens


@pytest.mark.parametrize("temperature", [0.5, 1.0])
def test_samples_follow_the_softmax_over_the_likeliest_tokens(loaded: Any, temperature: float) -> None:
    model, tokenizer = loaded
    prompt, num_rows = prompts(tokenizer)[1], 4000
    with torch.inference_mode():
        logits = model(torch.tensor([prompt])).logits[0, -1]
    likeliest = logits.topk(TOP_K)
    expected = torch.zeros_like(logits).scatter(0, likeliest.indices, (likeliest.values / temperature).softmax(0))
    rows = [GenerationRow(prompt=prompt, max_tokens=1, temperature=temperature, seed=seed) for seed in range(num_rows)]
    generate(MultiLoraModel(model), rows, frozenset(), batch_rows=num_rows)
    counts = torch.bincount(torch.tensor([row.tokens[0] for row in rows]), minlength=len(logits))
    assert counts[expected == 0].sum() == 0
    common = expected * num_rows > 5
    chi_square = ((counts - expected * num_rows)[common] ** 2 / (expected * num_rows)[common]).sum()
    degrees = int(common.sum())
    assert degrees > 5
    assert chi_square < degrees + 4 * (2 * degrees) ** 0.5


def test_stop_token_ends_the_row_and_is_kept_out_of_nothing_else(loaded: Any) -> None:
    model, tokenizer = loaded
    free, stopped = (GenerationRow(prompt=prompts(tokenizer)[0], max_tokens=12, temperature=0) for _ in range(2))
    generate(MultiLoraModel(model), [free], frozenset())
    stop = free.tokens[5]
    generate(MultiLoraModel(model), [stopped], frozenset({stop}))
    assert stopped.tokens == free.tokens[: free.tokens.index(stop) + 1]
    assert (free.finish_reason, stopped.finish_reason) == ("length", "stop")


def test_columns_that_no_row_uses_are_cut_off(loaded: Any) -> None:
    model, _ = loaded
    batch = DecodingBatch(MultiLoraModel(model), frozenset())
    short, long = GenerationRow(prompt=[5], max_tokens=30), GenerationRow(prompt=[5] * 100, max_tokens=2)
    batch.join([short, long])
    batch.step()
    assert batch.rows == [short]
    assert batch._mask.shape[1] == batch._cache.get_seq_length() == 2


def test_what_earlier_prompts_began_with_is_read_once_for_each_adapter(mixed: Any, loaded: Any) -> None:
    tokenizer = loaded[1]
    names = [None, "left", "right"]

    def rows() -> list[GenerationRow]:
        asked = [(prompt, name) for prompt in prompts(tokenizer) for name in names]
        return [GenerationRow(prompt=prompt, max_tokens=8, adapter=name, temperature=0) for prompt, name in asked]

    batch, one_by_one, apart = DecodingBatch(mixed, frozenset()), rows(), rows()
    widths = []
    hook = mixed.model.register_forward_pre_hook(
        lambda _, __, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    for row in one_by_one:
        batch.join([row])
    hook.remove()
    while batch.rows:
        batch.step()
    for row in apart:
        generate(mixed, [row], frozenset())
    assert [row.tokens for row in one_by_one] == [row.tokens for row in apart]
    read = list(zip(one_by_one, widths, strict=True))
    first, later = read[: len(names)], read[len(names) :]
    assert all(width == len(row.prompt) for row, width in first), "another adapter's keys and values were taken"
    assert all(width < len(row.prompt) for row, width in later)


def test_forgotten_adapter_may_come_back_as_another(loaded: Any, adapters: dict[str, Path], config: Config) -> None:
    lora, prompt = MultiLoraModel(load_base(config.base_model)[0]), prompts(loaded[1])[0]
    batch, answers = DecodingBatch(lora, frozenset()), {}
    for side in ("left", "right"):
        lora.load(adapters[side], "slot")
        row = answers[side] = GenerationRow(prompt=prompt, max_tokens=12, adapter="slot", temperature=0)
        batch.join([row])
        while batch.rows:
            batch.step()
        lora.unload("slot")
        batch.forget("slot")
    alone = GenerationRow(prompt=prompt, max_tokens=12, adapter="right", temperature=0)
    lora.load(adapters["right"], "right")
    generate(lora, [alone], frozenset())
    assert answers["right"].tokens == alone.tokens != answers["left"].tokens
