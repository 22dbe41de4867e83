"""Text that grows by tokens, and stop texts: the tokenizer and transformers' `stop_strings` say what is right."""

import random
from typing import Any

import pytest
import torch

from ratchet.base_model import load_base
from ratchet.config import Config
from ratchet.inference.answer_text import AnswerText
from ratchet.inference.batching import GenerationRow, generate
from ratchet.inference.lora import MultiLoraModel

QUESTIONS = ["Why is the sky blue?", "Bread?", "How do bees make honey?"]


@pytest.fixture(scope="module")
def loaded(config: Config) -> Any:
    return load_base(config.base_model)


def test_text_grows_to_what_the_tokenizer_decodes(loaded: Any) -> None:
    tokenizer, chance = loaded[1], random.Random(0)
    pieces = tokenizer("Grüße, 안녕 🌍 👩‍👩‍👧\n")["input_ids"]
    for _ in range(300):
        tokens = [chance.choice([*pieces, chance.randrange(len(tokenizer))]) for _ in range(30)]
        answer, seen = AnswerText(tokenizer.backend_tokenizer), ""
        for token in tokens:
            assert not answer.add(token)
            assert answer.text.startswith(seen)
            seen = answer.settled
        answer.finish(tokens)
        assert answer.text == tokenizer.decode(tokens, skip_special_tokens=True)
        assert len(answer.starts) == len(tokens)


@pytest.mark.parametrize("question", QUESTIONS)
def test_rows_stop_where_transformers_stops(loaded: Any, question: str) -> None:
    model, tokenizer = loaded
    prompt = tokenizer(question)["input_ids"]
    # No special tokens: transformers looks for stop texts in their names too.
    specials = list(tokenizer.added_tokens_decoder)
    banned = dict.fromkeys(specials, -100.0)
    free = GenerationRow(prompt=prompt, max_tokens=40, temperature=0, logit_bias=banned)
    generate(MultiLoraModel(model), [free], frozenset())
    said = tokenizer.decode(free.tokens)
    chance = random.Random(0)
    for _ in range(12):
        begin = chance.randrange(len(said) - 6)
        stops = [said[begin : begin + chance.randint(1, 6)], "never said", said[begin + 1 : begin + 3]]
        if any("\ufffd" in stop for stop in stops):
            continue  # half a character, which transformers finds in no token
        row = GenerationRow(prompt=prompt, max_tokens=40, temperature=0, logit_bias=banned)
        row.text = AnswerText(tokenizer.backend_tokenizer, stops)
        generate(MultiLoraModel(model), [row], frozenset())
        expected = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt)),
            do_sample=False,
            max_new_tokens=40,
            suppress_tokens=specials,
            stop_strings=stops,
            tokenizer=tokenizer,
        )[0, len(prompt) :].tolist()
        assert (row.tokens, row.finish_reason) == (expected, "stop")
        whole = tokenizer.decode(expected, skip_special_tokens=True)
        assert row.text.text == whole[: min(whole.find(stop) for stop in stops if stop in whole)]


def test_what_may_begin_a_stop_text_is_held_back_and_no_more(loaded: Any) -> None:
    tokenizer = loaded[1]
    answer = AnswerText(tokenizer.backend_tokenizer, ["END", "NDX"])
    settled = []
    for char in "aENbEND":
        stopped = [answer.add(token) for token in tokenizer(char)["input_ids"]][-1]
        settled.append(answer.settled)
    assert settled == ["a", "a", "a", "aENb", "aENb", "aENb", "aENb"]
    assert stopped
    assert answer.text == "aENb"
