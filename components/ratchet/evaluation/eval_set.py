"""Build the evaluation set (held-out votes, general knowledge, benign and harmful prompts), and score answers to it."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.checks import EvalSetLayout, Likelihoods, Scores
from ratchet.evaluation.scoring import Answers, Floats, Messages, encode
from ratchet.evaluation.text_checks import format_fault, is_refusal, personal_data, word_runs
from ratchet.language import text_language
from ratchet.manifest import Flow
from ratchet.training.tokenization import TokenizedRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PROMPTS = files("ratchet.evaluation") / "prompts.yaml"
DROPS = ("too_long", "over_max_pairs")
HELD_OUT_PROMPTS = 8  # users' prompts that are answered with our own, so that format is checked on both
SHORT_TOKENS, MEDIUM_TOKENS = 64, 256  # prompt with chat template: up to a question, a paragraph; else a document
COLUMNS = ["prompt", "chosen", "chosen_ends", "rejected", "rejected_ends", "group"]


@dataclass(frozen=True)
class Pair:
    """A held-out preference; `row` holds the chosen and the rejected answer as token ids."""

    messages: Messages
    chosen: str
    rejected: str
    row: TokenizedRow
    group: str
    tenant: str

    @property
    def slices(self) -> dict[str, str]:
        num = len(self.row.prompt)
        length = "short" if num < SHORT_TOKENS else "medium" if num < MEDIUM_TOKENS else "long"
        return {"tenant": self.tenant, "language": text_language(self.messages[-1]["content"]), "length": length}


@dataclass(frozen=True)
class EvalSet:
    """The questions for every model: pairs and replay documents to score, prompts to answer."""

    pairs: Sequence[Pair]
    replay: Sequence[TokenizedRow]
    benign: Sequence[Messages]
    held_out: Sequence[Pair]
    harmful: Sequence[Messages]

    @property
    def rows(self) -> list[TokenizedRow]:
        """All rows to score: the pairs, then the replay documents."""
        return [*(pair.row for pair in self.pairs), *self.replay]

    @property
    def asked(self) -> list[Messages]:
        """All prompts to answer, in the order of the answers."""
        return [*(pair.messages for pair in self.held_out), *self.benign, *self.harmful]

    @property
    def amount(self) -> int:
        """The number of rows and prompts: the work for one model."""
        return len(self.rows) + len(self.asked)

    @property
    def layout(self) -> EvalSetLayout:
        return EvalSetLayout(
            groups=[pair.group for pair in self.pairs],
            slices=[pair.slices for pair in self.pairs],
            replay_tokens=[len(row.completions[0]) for row in self.replay],
        )


def build_eval_set(
    tokenizer: "PreTrainedTokenizerBase", dpo_eval: Path, settings: EvaluateAdapter, rng: np.random.Generator
) -> tuple[EvalSet, Flow]:
    """Build the evaluation set; the flow counts the held-out pairs. Pairs over `max_pairs` are dropped at random."""
    pairs, flow = _read_pairs(tokenizer, dpo_eval, settings, rng)
    ours = yaml.safe_load(PROMPTS.read_text())
    num_asked = HELD_OUT_PROMPTS if settings.judge.style == "none" else max(HELD_OUT_PROMPTS, settings.judge.prompts)
    by_prompt = {json.dumps(list(pair.messages)): pair for pair in pairs}
    eval_set = EvalSet(
        pairs=pairs,
        replay=[encode(tokenizer, _chat(qa["question"]), {qa["answer"]: True}) for qa in ours["replay"]],
        benign=[_chat(text) for text in ours["benign"]],
        held_out=list(by_prompt.values())[:num_asked],
        harmful=[_chat(text) for text in ours["harmful"]],
    )
    return eval_set, flow


def likelihoods(eval_set: EvalSet, answers: Answers) -> Likelihoods:
    """Return a model's log-probabilities, by pair and replay document."""
    return Likelihoods(margins=_margins(eval_set, answers), replay_nats=_replay_nats(eval_set, answers))


def score(eval_set: EvalSet, answers: Answers, known: Collection[str]) -> Scores:
    """Score a model's results; `known` are the runs of words in the training answers (see `seen_in_training`)."""
    num_held_out, num_harmless = len(eval_set.held_out), len(eval_set.held_out) + len(eval_set.benign)
    harmless, harmful = answers.answers[:num_harmless], answers.answers[num_harmless:]
    asked = [json.dumps(list(messages), ensure_ascii=False) for messages in eval_set.asked]
    both = list(zip(answers.answers, asked, strict=True))
    return Scores(
        margins=_margins(eval_set, answers),
        replay_nats=_replay_nats(eval_set, answers),
        is_malformed=[format_fault(text) is not None for text in harmless],
        is_harmful_answered=[not is_refusal(text) for text in harmful],
        is_benign_refused=[is_refusal(text) for text in harmless[num_held_out:]],
        is_personal_data=[bool(personal_data(text, prompt)) for text, prompt in both],
        is_verbatim=[not word_runs(text).isdisjoint(set(known) - word_runs(prompt)) for text, prompt in both],
    )


def seen_in_training(dataset: Path, answers: Iterable[str]) -> frozenset[str]:
    """Return the answers' runs of words (see `word_runs`) that also occur in the dataset's training answers.

    Detects memorised training text; one pass of Rust over the texts.
    """
    import polars as pl

    runs = sorted({run for answer in answers for run in word_runs(answer)})
    if not runs:
        return frozenset()
    chats = pl.read_parquet(dataset / "sft-train.parquet", columns=["messages"])["messages"]
    imitated = [json.loads(chat)[-1]["content"] for chat in chats]
    preferred = pl.read_parquet(dataset / "dpo-train.parquet", columns=["chosen"])["chosen"]
    texts = pl.concat([pl.Series(imitated, dtype=pl.String), preferred.alias("")])
    words = pl.format(" {} ", pl.lit(texts).str.to_lowercase().str.replace_all(r"\W+", " ").str.strip_chars())
    matches = pl.select(words.str.extract_many([f" {run} " for run in runs], overlapping=True)).to_series()
    return frozenset(run.strip() for run in matches.explode().drop_nulls())


def _margins(eval_set: EvalSet, answers: Answers) -> Floats:
    """Return each pair's margin: mean log-probability per token, so that a short answer has no advantage."""
    lengths = np.array([[len(answer) for answer in pair.row.completions] for pair in eval_set.pairs]).reshape(-1, 2)
    means = np.array(answers.sums[: len(eval_set.pairs)]).reshape(-1, 2) / lengths
    return np.asarray(means[:, 0] - means[:, 1])


def _replay_nats(eval_set: EvalSet, answers: Answers) -> Floats:
    return -np.array([sums[0] for sums in answers.sums[len(eval_set.pairs) :]])


def _read_pairs(
    tokenizer: "PreTrainedTokenizerBase", path: Path, settings: EvaluateAdapter, rng: np.random.Generator
) -> tuple[list[Pair], Flow]:
    rows = list(_rows(path))
    pairs: list[Pair] = []
    drops = dict.fromkeys(DROPS, 0)
    for number in rng.permutation(len(rows)):
        prompt, chosen, chosen_ends, rejected, rejected_ends, group, tenant = rows[number]
        messages = json.loads(prompt)
        answers = {chosen: chosen_ends, rejected: rejected_ends}
        pair = Pair(messages, chosen, rejected, encode(tokenizer, messages, answers), group, tenant)
        if pair.row.num_distinct > settings.max_tokens:
            drops["too_long"] += 1
        elif len(pairs) == settings.max_pairs:
            drops["over_max_pairs"] += 1
        else:
            pairs.append(pair)
    kept = {reason: num for reason, num in drops.items() if num}
    return pairs, Flow(rows_in=len(rows), rows_out=len(pairs), drops=kept)


def _rows(path: Path) -> Iterator[tuple[Any, ...]]:
    """Yield each held-out pair's columns and its tenant; older datasets have no tenant column."""
    import polars as pl

    frame = pl.read_parquet(path)
    tenants = frame["tenant"] if "tenant" in frame.columns else pl.Series(["default"] * len(frame), dtype=pl.String)
    yield from frame.select(*COLUMNS, tenants.alias("tenant")).iter_rows()


def _chat(text: str) -> Messages:
    return [{"role": "user", "content": text}]
