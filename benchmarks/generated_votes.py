"""Made-up interactions and votes by the million, the same for the same seed: what the data benchmarks run on.

Words follow Zipf's law, answers are two to four sentences of a pool, and one prompt in three is asked more than once.
One event in a hundred lands twice.
"""

import sys

import numpy as np
import polars as pl

from ratchet.ingest.bulk import land_rows
from ratchet.lake.schema import FEEDBACK, INTERACTIONS
from ratchet.store import Store, open_store

DAY_ROWS = 250_000
VOTES_PER_ANSWER = 5  # answers for each vote
START_S = 1_767_225_600  # 2026-01-01
DAY_S = 86_400
NUM_WORDS, NUM_SENTENCES = 20_000, 60_000
KINDS = ["thumb", "rating", "preference", "correction", "copy"]
SHARES = [0.7, 0.1, 0.1, 0.05, 0.05]


def land_generated(store: Store, num_rows: int, seed: int = 0) -> int:
    """Land about `num_rows` events, five answers for each vote, as Parquet; how many exactly."""
    rng = np.random.default_rng(seed)
    sentences = _sentences(rng)
    num_answers = num_rows * VOTES_PER_ANSWER // (VOTES_PER_ANSWER + 1)
    total = 0
    for day, start in enumerate(range(0, num_answers, DAY_ROWS)):
        answers = _answers(rng, sentences, day, min(DAY_ROWS, num_answers - start))
        votes = _votes(rng, sentences, answers)
        for table, rows in ((INTERACTIONS, answers), (FEEDBACK, votes)):
            twice = pl.concat([rows, rows.sample(fraction=0.01, seed=int(rng.integers(2**32)))])
            land_rows(store, table, twice)
            total += twice.height
    return total


def _sentences(rng: np.random.Generator) -> pl.Series:
    syllables = np.array(["ba", "con", "de", "ing", "lo", "mer", "na", "per", "qui", "ra", "ster", "ti", "un", "ver"])
    words = np.array(["".join(rng.choice(syllables, size)) for size in rng.integers(1, 4, NUM_WORDS)])
    zipf = 1 / np.arange(1, NUM_WORDS + 1)
    lengths = rng.integers(8, 20, NUM_SENTENCES)
    drawn = iter(rng.choice(words, lengths.sum(), p=zipf / zipf.sum()))
    return pl.Series([" ".join(next(drawn) for _ in range(length)).capitalize() + "." for length in lengths])


def _answers(rng: np.random.Generator, sentences: pl.Series, day: int, num: int) -> pl.DataFrame:
    # A third of the prompts comes from a small pool, so that answers to one prompt can be compared.
    asked = np.where(rng.random(num) < 1 / 3, rng.integers(0, 2000, num), rng.integers(0, NUM_SENTENCES, num))
    again = np.where(asked < 2000, asked, rng.integers(0, NUM_SENTENCES, num))
    prompt = _pick(sentences, asked) + " " + _pick(sentences, again)
    parts = [_pick(sentences, rng.integers(0, NUM_SENTENCES, num)) for _ in range(4)]
    length = rng.integers(2, 5, num)
    response = pl.select(
        pl.concat_str(
            [parts[0], parts[1]]
            + [pl.when(pl.lit(pl.Series(length > place))).then(pl.lit(parts[place])) for place in (2, 3)],
            separator=" ",
            ignore_nulls=True,
        )
    ).to_series()
    return pl.DataFrame(
        {
            "interaction_id": _ids(rng, num),
            "conversation_id": _ids(rng, num),
            "subject_id": _names("user", rng.integers(0, 200_000, num)),
            "messages": '[{"content":"' + prompt + '","role":"user"}]',
            "response": response,
            "base_model": pl.Series(["smollm2-135m-instruct"]).new_from_index(0, num),
            "adapter_version": pl.Series(rng.integers(1, 5, num)).cast(pl.String),
            "params": pl.Series(['{"max_tokens":256,"temperature":0.7}']).new_from_index(0, num),
            "prompt_tokens": rng.integers(20, 60, num),
            "completion_tokens": rng.integers(20, 120, num),
            "latency_ms": np.round(rng.gamma(2, 300, num), 1),
            "served_at": START_S + day * DAY_S + np.sort(rng.random(num)) * DAY_S,
            "consent_training": pl.Series(["granted", "denied"]).gather(rng.random(num) < 0.05),
        }
    )


def _votes(rng: np.random.Generator, sentences: pl.Series, answers: pl.DataFrame) -> pl.DataFrame:
    num = answers.height // VOTES_PER_ANSWER
    on = rng.integers(0, answers.height, num)
    kind = rng.choice(KINDS, num, p=SHARES)
    rival = answers["interaction_id"].gather(rng.integers(0, answers.height, num))
    value_num = np.select(
        [kind == "thumb", kind == "rating", kind == "copy"],
        [np.where(rng.random(num) < 0.6, 1, -1), rng.integers(1, 6, num), 1],
        np.nan,
    )
    edit = answers["response"].gather(on) + " " + _pick(sentences, rng.integers(0, NUM_SENTENCES, num))
    texts = pl.select(
        pl.when(pl.lit(pl.Series(kind == "preference")))
        .then(pl.lit(rival))
        .when(pl.lit(pl.Series(kind == "correction")))
        .then(pl.lit(edit))
    ).to_series()
    return pl.DataFrame(
        {
            "feedback_id": _ids(rng, num),
            "interaction_id": answers["interaction_id"].gather(on),
            "subject_id": _names("user", rng.integers(0, 200_000, num)),
            "kind": kind,
            "value_num": pl.Series(value_num).fill_nan(None),
            "value_text": texts,
            "created_at": answers["served_at"].gather(on) + rng.random(num) * 3600,
        }
    )


def _pick(sentences: pl.Series, places: np.ndarray) -> pl.Series:
    return sentences.gather(places)


def _names(prefix: str, numbers: np.ndarray) -> pl.Series:
    return pl.Series([f"{prefix}-"]).new_from_index(0, len(numbers)) + pl.Series(numbers).cast(pl.String)


def _ids(rng: np.random.Generator, num: int) -> pl.Series:
    written = rng.bytes(16 * num).hex()
    return pl.Series([written[start : start + 32] for start in range(0, len(written), 32)])


if __name__ == "__main__":
    land_generated(open_store(sys.argv[1]), int(sys.argv[2]))
