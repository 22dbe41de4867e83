import json
from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.datasets.split import Split, near_duplicates, shingles, split


def chat(text: str) -> str:
    return json.dumps([{"role": "user", "content": text}])


def divide(seen: list[tuple[str, str]], near: float = 0.8, share: float = 0.3, seed: int = 0) -> Split:
    names, prompts = zip(*seen, strict=True) if seen else ((), ())
    return split(names, [chat(text) for text in prompts], near_duplicate=near, eval_share=share, seed=seed)


@cache
def parts(text: str) -> frozenset[tuple[str, ...]]:
    words = "".join(sign if sign.isalnum() or sign == "_" else " " for sign in text.casefold()).split()
    width = 3 if len(words) >= 8 else 1
    return frozenset(tuple(words[at : at + width]) for at in range(len(words) - width + 1))


@cache
def plain(text: str) -> str:
    return " ".join(text.casefold().split())


def is_near(one: str, other: str, threshold: float) -> bool:
    """The rule itself, written again without an index and without the splitter's code."""
    shared = len(parts(one) & parts(other))
    union = len(parts(one)) + len(parts(other)) - shared
    return plain(one) == plain(other) or (union > 0 and shared >= threshold * union)


def leaks(seen: list[tuple[str, str]], sides: Split, near: Callable[[str, str], bool]) -> list[tuple[str, str]]:
    """Every (train, eval) pair of prompts that share a conversation or are nearly the same."""
    held_out = [sides.group_of[chat(text)] in sides.eval_groups for _, text in seen]
    train = [one for one, is_eval in zip(seen, held_out, strict=True) if not is_eval]
    evaluation = [one for one, is_eval in zip(seen, held_out, strict=True) if is_eval]
    return [
        (a[1], b[1])
        for a in train
        for b in evaluation
        if a[0] == b[0] or near(a[1], b[1])
    ]  # fmt: skip


def test_conversation_stays_together():
    sides = divide([("c1", "First question here?"), ("c1", "And something else entirely?")])
    assert sides.num_groups == 1


def test_same_words_in_other_case_space_and_punctuation_stay_together():
    sides = divide([("c1", "Why  is the SKY blue?"), ("c2", "why is the sky\nblue")])
    assert sides.num_groups == 1


def test_composed_and_decomposed_accents_are_one_prompt():
    assert divide([("c1", "Où est le café ?"), ("c2", "Ou\u0300 est le cafe\u0301 ?")]).num_groups == 1


def test_long_prompts_that_differ_in_a_word_at_the_end_stay_together():
    text = "Write a short and friendly letter to my landlord about the broken heating in my flat since"
    assert divide([("c1", f"{text} Monday"), ("c2", f"{text} Tuesday")]).num_groups == 1


def test_short_prompts_that_differ_in_the_word_that_matters_stay_apart():
    sides = divide([("c1", "What is the capital of France?"), ("c2", "What is the capital of Spain?")])
    assert sides.num_groups == 2


def test_shared_system_message_links_nothing():
    system = {"role": "system", "content": "You are a patient and helpful assistant who answers in one sentence."}
    prompts = [json.dumps([system, {"role": "user", "content": text}]) for text in ("Bread?", "Honey?")]
    assert split(["c1", "c2"], prompts, near_duplicate=0.8, eval_share=0.2, seed=0).num_groups == 2


@pytest.mark.parametrize("seed", range(5))
def test_single_group_is_all_trained_on(seed: int):
    assert divide([("c1", "Bread?")], share=0.99, seed=seed).eval_groups == frozenset()


def test_nothing_splits_into_nothing():
    assert divide([]) == Split(group_of={}, eval_groups=frozenset(), num_groups=0, largest_group=0)


def test_share_of_groups_held_out_is_near_the_one_asked():
    sides = divide([(f"c{n}", f"prompt{n}") for n in range(2000)], share=0.2)
    assert 0.17 < len(sides.eval_groups) / 2000 < 0.23


def test_growth_leaves_groups_on_their_side():
    before = divide([(f"c{n}", f"prompt{n}") for n in range(200)])
    after = divide([(f"c{n}", f"prompt{n}") for n in range(400)])
    assert before.group_of.items() <= after.group_of.items()
    assert before.eval_groups <= after.eval_groups


def test_seed_changes_the_sides():
    seen = [(f"c{n}", f"prompt{n}") for n in range(50)]
    assert {chat(t) for _, t in seen if divide(seen).group_of[chat(t)] in divide(seen).eval_groups} != {
        chat(t) for _, t in seen if divide(seen, seed=1).group_of[chat(t)] in divide(seen, seed=1).eval_groups
    }


words = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"])
texts = st.lists(words, max_size=14).map(" ".join)
thresholds = st.sampled_from([0.3, 0.5, 0.8, 1.0])


@settings(max_examples=60, deadline=None)
@given(st.lists(texts, max_size=20, unique=True), thresholds)
def test_near_duplicates_are_found_all_and_only(found_texts, threshold):
    expected = {
        (one, other)
        for other in range(len(found_texts))
        for one in range(other)
        if found_texts[one] and found_texts[other] and is_near(found_texts[one], found_texts[other], threshold)
    }
    assert set(near_duplicates(found_texts, threshold)) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["c1", "c2", "c3", "c4", "c5"]), texts), max_size=20), thresholds)
def test_no_prompt_conversation_or_near_duplicate_on_both_sides(seen, threshold):
    sides = divide(seen, near=threshold, share=0.5)
    assert leaks(seen, sides, lambda one, other: is_near(one, other, threshold)) == []


def test_real_prompts_do_not_leak(shared_data):
    rows = json.loads((shared_data / "pandalm-testset-v1.json").read_text())
    seen = [(f"c{row['idx']}", f"{row['instruction']}\n{row['input']}") for row in rows]
    sides = divide(seen, near=0.5)
    assert sides.eval_groups
    assert leaks(seen, sides, lambda one, other: is_near(one, other, 0.5)) == []


def test_shingles_of_a_long_text_are_runs_of_three_words():
    assert shingles("a b c d e f g h") == {"a b c", "b c d", "c d e", "d e f", "e f g", "f g h"}
