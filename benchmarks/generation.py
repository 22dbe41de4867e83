"""Answers a second from the embedded model: our continuous batching against `transformers.generate`."""

import time
from collections.abc import Callable
from typing import Any

import torch

from ratchet.base_model import load_base
from ratchet.config import BaseModelSource
from ratchet.inference.batching import GenerationRow, generate, stop_tokens
from ratchet.inference.lora import MultiLoraModel

NUM_ROWS = 64
MAX_TOKENS = 32
REPEATS = 3


def run() -> dict[str, float]:
    """Tokens a second of each arm, the best of REPEATS interleaved runs."""
    model, tokenizer = load_base(BaseModelSource())
    chats = [[{"role": "user", "content": f"Tell me about the number {number}."}] for number in range(NUM_ROWS)]
    texts = [tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True) for chat in chats]
    arms = {"ours": lambda: _ours(model, tokenizer, texts), "transformers": lambda: _theirs(model, tokenizer, texts)}
    best = dict.fromkeys(arms, 0.0)
    for _ in range(REPEATS):
        for name, arm in arms.items():
            best[name] = max(best[name], _tokens_per_second(arm))
    return best


def _tokens_per_second(arm: Callable[[], int]) -> float:
    start = time.perf_counter()
    return arm() / (time.perf_counter() - start)


def _ours(model: Any, tokenizer: Any, texts: list[str]) -> int:
    rows = [
        GenerationRow(prompt=tokenizer(text)["input_ids"], max_tokens=MAX_TOKENS, seed=n)
        for n, text in enumerate(texts)
    ]
    generate(MultiLoraModel(model), rows, stop_tokens(model, tokenizer))
    return sum(len(row.tokens) for row in rows)


@torch.inference_mode()
def _theirs(model: Any, tokenizer: Any, texts: list[str]) -> int:
    inputs = tokenizer(texts, return_tensors="pt", padding=True)
    made = model.generate(
        **inputs, max_new_tokens=MAX_TOKENS, do_sample=True, top_k=50, pad_token_id=tokenizer.pad_token_id
    )
    answers = made[:, inputs["input_ids"].shape[1] :]
    return int((answers != tokenizer.pad_token_id).sum())
