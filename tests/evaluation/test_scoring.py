"""Log-probabilities and answers against the plain way of computing them."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ratchet.config import Config, Lora, TrainAdapter
from ratchet.errors import UserError
from ratchet.evaluation.scoring import PASS_TOKENS, Models, answers, encode, load, log_probs
from ratchet.training.batches import collate
from ratchet.training.tokenization import TokenizedRow
from support.tiny_adapter import build

QUESTIONS = [
    [{"role": "user", "content": text}]
    for text in ("What is bread?", "Why is the sky blue? Tell me more about light and air.", "Tell me about bees.")
]
PROMPT = [{"role": "user", "content": "What is bread?"}]


@pytest.fixture(scope="module")
def models(config: Config, adapters: tuple[Path, Path]) -> Models:
    return load(config, {"candidate": adapters[0], "incumbent": adapters[1]})


@pytest.fixture(scope="module")
def loud(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Adapters strong enough to change greedy answers."""
    folder = tmp_path_factory.mktemp("loud")
    return load(
        config,
        {name: build(folder / name, config, seed, 0.5) for seed, name in enumerate(("candidate", "incumbent"))},
    )


def rows(models: Models) -> list[TokenizedRow]:
    return [
        encode(models.tokenizer, PROMPT, {"Flour and water.": True, "No.": False}),
        encode(
            models.tokenizer, [{"role": "user", "content": "Tell me about the sky, at length."}], {"Blue light.": True}
        ),
        encode(
            models.tokenizer,
            PROMPT,
            {"Paris is the capital of France.": True, "Yeast": True, "Honey in the comb.": True},
        ),
    ]


def plain(model, row: TokenizedRow) -> list[float]:
    import torch

    found = []
    for answer in row.completions:
        ids = torch.tensor([[*row.prompt, *answer]])
        with torch.no_grad():
            logs = model(ids).logits[0].log_softmax(-1)
        start = len(row.prompt)
        found.append(sum(float(logs[start + place - 1, token]) for place, token in enumerate(answer)))
    return found


def ignore(done: int) -> None:
    pass


@pytest.mark.parametrize("name", [None, "candidate", "incumbent"])
def test_answers_that_share_a_prompt_score_as_if_alone(models: Models, name: str | None) -> None:
    for found, row in zip(log_probs(models, name, rows(models), ignore), rows(models), strict=True):
        np.testing.assert_allclose(found, plain(models.lora.model, row), atol=1e-4)


def test_each_name_is_another_model(models: Models) -> None:
    found = []
    for name in (None, "candidate", "incumbent", None):
        found.append(log_probs(models, name, rows(models), ignore)[0][0])
    assert len(set(found)) == 3
    assert found[0] == found[3]


def test_an_answer_ends_with_the_end_of_turn_unless_it_was_cut_off(models: Models) -> None:
    row = rows(models)[0]
    assert models.tokenizer.decode(row.prompt) == "<|im_start|>user\nWhat is bread?<|im_end|>\n<|im_start|>assistant\n"
    assert [models.tokenizer.decode(answer) for answer in row.completions] == [
        "Flour and water.<|im_end|>",
        "No.",
    ]


def test_progress_counts_every_row(models: Models) -> None:
    done: list[int] = []
    log_probs(models, None, rows(models) * 30, done.append)
    assert sum(done) == 90
    assert len(done) > 1


def test_an_answer_in_a_batch_is_the_answer_alone(loud: Models) -> None:
    together = answers(loud, "candidate", QUESTIONS, 8)
    assert together == [answers(loud, "candidate", [question], 8)[0] for question in QUESTIONS]
    assert len(set(together)) > 1


def test_each_name_answers_for_itself(loud: Models) -> None:
    # Greedy answers of the base model were once taken for the candidate's.
    said = [tuple(answers(loud, name, QUESTIONS, 8)) for name in (None, "candidate", "incumbent")]
    assert len(set(said)) == 3


def test_an_adapter_that_could_not_be_served_is_not_judged(config: Config, tmp_path: Path) -> None:
    (tmp_path / "adapter_model.bin").write_bytes(b"pickle")
    with pytest.raises(UserError, match="cannot be served"):
        load(config, {"candidate": tmp_path})


def as_in_training(config: Config, adapter: Path | None) -> tuple[object, object]:
    """The model as `train_adapter` scores it: PEFT's wrapper, our attention, our LoRA layers; with its tokenizer."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    from ratchet.training.train_adapter import fresh_adapter

    model, tokenizer = fresh_adapter(config)
    if adapter is not None:
        set_peft_model_state_dict(model, load_file(adapter / "adapter_model.safetensors"))
    return model.eval(), tokenizer


@pytest.mark.parametrize("name", [None, "candidate"])
def test_training_and_evaluation_give_the_same_bits_for_the_same_row(
    models: Models, config: Config, adapters: tuple[Path, Path], name: str | None
) -> None:
    import torch

    from ratchet.training.batches import passes
    from ratchet.training.log_probs import completion_log_probs
    from ratchet.training.phases import layout_of

    settings = config.model_copy(update={"train_adapter": TrainAdapter(lora=Lora(r=8, alpha=16), threads=1)})
    model, tokenizer = as_in_training(settings, adapters[0] if name else None)
    layout = replace(layout_of(settings.train_adapter, tokenizer), pass_tokens=PASS_TOKENS)
    ((*chosen,),) = passes(rows(models), layout)
    with torch.no_grad():
        parts = iter(completion_log_probs(model, collate([rows(models)[index] for index in chosen], layout)))
    scored = log_probs(models, name, rows(models), ignore)
    for index in chosen:
        trained = [float(next(parts).sum()) for _ in rows(models)[index].completions]
        assert scored[index].tolist() == trained
    assert torch.get_num_threads() == 1
    assert model.get_base_model().config._attn_implementation != models.lora.model.config._attn_implementation


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings:UserWarning")
def test_an_adapter_of_the_output_head_is_refused(config: Config, tmp_path: Path) -> None:
    # Scores come from the frozen head, so its update would be left out without a word.
    folder = build(tmp_path / "head", config, seed=1, target_modules=["q_proj", "lm_head"])
    with pytest.raises(UserError, match="updates the output head"):
        load(config, {"candidate": folder})


def test_a_sliding_window_shorter_than_the_rows_is_refused(config: Config, tmp_path: Path) -> None:
    folder = shutil.copytree(config.base_model.model, tmp_path / "windowed")
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, "sliding_window": 64}))
    source = config.base_model.model_copy(update={"model": str(folder)})
    with pytest.raises(UserError, match=r"evaluate_adapter.max_tokens = 1024, .* last 64 tokens"):
        load(config.model_copy(update={"base_model": source}), {})
