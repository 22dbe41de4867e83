from itertools import combinations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.datasets.near_duplicates import components, near_duplicates
from support.leak_checker import is_near

words = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"])
texts = st.lists(words, max_size=16).map(" ".join)
thresholds = st.sampled_from([0.3, 0.5, 0.8, 1.0])


def found(texts: list[str], threshold: float, within: list[int] | None = None) -> list[tuple[int, int]]:
    numbers = None if within is None else np.array(within, dtype=np.uint64)
    return [(int(a), int(b)) for a, b in near_duplicates(pl.Series(texts, dtype=pl.String), threshold, within=numbers)]


@settings(max_examples=80, deadline=None)
@given(st.lists(texts, max_size=24), thresholds)
def test_near_texts_are_connected_and_only_near_ones_linked(some: list[str], threshold: float):
    pairs = found(some, threshold)
    assert all(is_near(some[one], some[other], threshold) for one, other in pairs)
    labels = components(len(some), np.array(pairs, dtype=np.int64).reshape(-1, 2))
    near = [pair for pair in combinations(range(len(some)), 2) if is_near(some[pair[0]], some[pair[1]], threshold)]
    assert all(labels[one] == labels[other] for one, other in near)


def test_a_crowd_of_copies_is_connected_with_few_links():
    crowd = [f"tell me everything that you know about the history of bread in {n} words please" for n in range(300)]
    pairs = found(crowd, 0.5)
    assert len(set(components(300, np.array(pairs)).tolist())) == 1
    assert len(pairs) < 20 * 300


def test_only_texts_of_one_kind_are_near():
    assert found(["Bread is good."] * 3, 0.8, within=[1, 2, 1]) == [(2, 0)]


@pytest.mark.parametrize(("one", "other"), [("🙂", "🙃"), ("?", "!")])
def test_texts_without_words_are_near_only_if_equal(one: str, other: str):
    assert found([one, other, f" {one}"], 0.8) == [(0, 2)]


def test_chinese_is_compared_sign_by_sign():
    text = "今天天气很好我们去公园散步吧"
    assert found([text, text.replace("吧", "吗"), "完全不同的句子在这里写着呢"], 0.7) == [(0, 1)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.text(max_size=30), max_size=10))
def test_any_text_is_near_itself(some: list[str]):
    twice = [*some, *some]
    labels = components(len(twice), np.array(found(twice, 0.8), dtype=np.int64).reshape(-1, 2))
    assert labels[: len(some)].tolist() == labels[len(some) :].tolist()
