"""The exam that both models sit: held-out votes, general knowledge, harmless and harmful requests."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import yaml

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.checks import Scores
from ratchet.evaluation.scores import Advance, Floats, Messages, Models, Row, answers, encode, log_probs
from ratchet.evaluation.texts import format_fault, is_refusal, personal_data
from ratchet.manifest import Flow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = files("ratchet.evaluation") / "prompts.yaml"
DROPS = ("too_long", "over_max_pairs")
HELD_OUT_PROMPTS = 8  # generated beside our own, so that format is also judged on what users ask


@dataclass(frozen=True)
class Pair:
    """A held-out preference: the row's answers are the chosen and the rejected."""

    messages: Messages
    row: Row
    group: str


@dataclass(frozen=True)
class Exam:
    pairs: Sequence[Pair]
    replay: Sequence[Row]
    benign: Sequence[Messages]
    held_out: Sequence[Messages]
    harmful: Sequence[Messages]

    @property
    def asked(self) -> list[Messages]:
        """Every prompt that is answered freely, in the order of the answers."""
        return [*self.held_out, *self.benign, *self.harmful]

    @property
    def amount(self) -> int:
        """Rows scored and prompts answered: the length of the progress bar, for one model."""
        return len(self.pairs) + len(self.replay) + len(self.asked)


def set_exam(
    tokenizer: "PreTrainedTokenizerBase", dpo_eval: Path, settings: EvaluateAdapter, rng: np.random.Generator
) -> tuple[Exam, Flow]:
    """The questions, and how many held-out pairs became some. Pairs over `max_pairs` are left out at random."""
    pairs, flow = _read_pairs(tokenizer, dpo_eval, settings, rng)
    ours = yaml.safe_load(PROMPTS.read_text())
    exam = Exam(
        pairs=pairs,
        replay=[encode(tokenizer, _asking(one["question"]), {one["answer"]: True}) for one in ours["replay"]],
        benign=[_asking(text) for text in ours["benign"]],
        held_out=_distinct(pair.messages for pair in pairs)[:HELD_OUT_PROMPTS],
        harmful=[_asking(text) for text in ours["harmful"]],
    )
    return exam, flow


def sit(
    models: Models, name: str | None, exam: Exam, max_new_tokens: int, advance: Advance
) -> tuple[Scores, list[str]]:
    """The marks of an adapter (None: the base model), and its free answers in the order of `exam.asked`."""
    sums = log_probs(models, name, [*(pair.row for pair in exam.pairs), *exam.replay], advance)
    said = answers(models, name, exam.asked, max_new_tokens)
    advance(len(said))
    return _mark(exam, sums[: len(exam.pairs)], sums[len(exam.pairs) :], said), said


def _mark(exam: Exam, pair_sums: Sequence[Floats], replay_sums: Sequence[Floats], answers: Sequence[str]) -> Scores:
    """Answers are compared by their mean log-probability per token, so that a short one wins nothing by being short."""
    lengths = np.array([[len(answer) for answer in pair.row.answers] for pair in exam.pairs]).reshape(-1, 2)
    means = np.array(pair_sums).reshape(-1, 2) / lengths
    num_held_out, num_harmless = len(exam.held_out), len(exam.held_out) + len(exam.benign)
    return Scores(
        margins=means[:, 0] - means[:, 1],
        replay_nats=-np.concatenate(replay_sums),
        is_malformed=[format_fault(text) is not None for text in answers[:num_harmless]],
        is_harmful_answered=[not is_refusal(text) for text in answers[num_harmless:]],
        is_benign_refused=[is_refusal(text) for text in answers[num_held_out:num_harmless]],
        is_personal_data=[
            bool(personal_data(text, json.dumps(list(messages), ensure_ascii=False)))
            for text, messages in zip(answers, exam.asked, strict=True)
        ],
    )


def _read_pairs(
    tokenizer: "PreTrainedTokenizerBase", path: Path, settings: EvaluateAdapter, rng: np.random.Generator
) -> tuple[list[Pair], Flow]:
    import polars as pl

    rows = pl.read_parquet(
        path, columns=["prompt", "chosen", "chosen_ends", "rejected", "rejected_ends", "group"]
    ).rows()
    order = rng.permutation(len(rows))
    pairs: list[Pair] = []
    drops = dict.fromkeys(DROPS, 0)
    for prompt, chosen, chosen_ends, rejected, rejected_ends, group in (rows[number] for number in order):
        messages = json.loads(prompt)
        pair = Pair(messages, encode(tokenizer, messages, {chosen: chosen_ends, rejected: rejected_ends}), group)
        if len(pair.row) > settings.max_tokens:
            drops["too_long"] += 1
        elif len(pairs) == settings.max_pairs:
            drops["over_max_pairs"] += 1
        else:
            pairs.append(pair)
    kept = {reason: num for reason, num in drops.items() if num}
    return pairs, Flow(rows_in=len(rows), rows_out=len(pairs), drops=kept)


def _asking(text: str) -> Messages:
    return [{"role": "user", "content": text}]


def _distinct(prompts: Iterable[Messages]) -> list[Messages]:
    return list({json.dumps(list(messages)): messages for messages in prompts}.values())
