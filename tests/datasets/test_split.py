import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ratchet.datasets.dedup import prompt_clusters
from ratchet.datasets.shingles import stable_hash
from ratchet.datasets.split import EVAL, RECENT, TRAIN, Split, split
from support.leak_checker import is_near

Seen = list[tuple[str, str]]


class Divided:
    """A split of (conversation, prompt text) pairs, by text."""

    def __init__(self, seen: Seen, *, near: float = 0.8, share: float = 0.3, seed: int = 0, **options: object) -> None:
        texts = sorted({text for _, text in seen})
        clusters = prompt_clusters(pl.Series(texts, dtype=pl.String), near).tolist()
        self.cluster = dict(zip(texts, clusters, strict=True))
        first_at = options.pop("first_at", {})
        table = pl.DataFrame(
            {
                "cluster": [self.cluster[text] for _, text in seen],
                "conversation": stable_hash(pl.Series([name for name, _ in seen], dtype=pl.String)),
                "first_at": [first_at.get(name, 0.0) for name, _ in seen],
            },
            schema={"cluster": pl.Int32, "conversation": pl.UInt64, "first_at": pl.Float64},
        )
        options = {"hub_conversations": 20, **options}
        self.split: Split = split(table, eval_share=share, seed=seed, **options)
        self.sides = dict(self.split.clusters.select("cluster", "side").iter_rows())

    def __getitem__(self, text: str) -> str:
        return self.sides[self.cluster[text]]

    @property
    def num_groups(self) -> int:
        return self.split.num_groups


def leaks(seen: Seen, sides: Divided, threshold: float) -> Seen:
    """Every (train, eval) pair of prompts that share a conversation or are nearly the same."""
    train = [one for one in seen if sides[one[1]] == TRAIN]
    held_out = [one for one in seen if sides[one[1]] == EVAL]
    return [
        (one, other)
        for conversation, one in train
        for name, other in held_out
        if conversation == name or is_near(one, other, threshold)
    ]


def test_conversation_stays_together():
    assert Divided([("c1", "First question here?"), ("c1", "And something else entirely?")]).num_groups == 1


def test_same_words_in_other_case_space_and_punctuation_stay_together():
    assert Divided([("c1", "Why  is the SKY blue?"), ("c2", "why is the sky\nblue")]).num_groups == 1


def test_composed_and_decomposed_accents_are_one_prompt():
    assert Divided([("c1", "Où est le café ?"), ("c2", "Ou\u0300 est le cafe\u0301 ?")]).num_groups == 1


def test_long_prompts_that_differ_in_a_word_at_the_end_stay_together():
    text = "Write a short and friendly letter to my landlord about the broken heating in my flat since"
    assert Divided([("c1", f"{text} Monday"), ("c2", f"{text} Tuesday")]).num_groups == 1


def test_short_prompts_that_differ_in_the_word_that_matters_stay_apart():
    assert Divided([("c1", "What is the capital of France?"), ("c2", "What is the capital of Spain?")]).num_groups == 2


@pytest.mark.parametrize("seed", range(5))
def test_single_group_is_all_trained_on(seed: int):
    assert Divided([("c1", "Bread?")], share=0.99, seed=seed)["Bread?"] == TRAIN


def test_nothing_splits_into_nothing():
    sides = Divided([]).split
    assert (len(sides.clusters), len(sides.conversations), sides.num_groups, sides.largest_group) == (0, 0, 0, 0)


def test_share_of_groups_held_out_is_near_the_one_asked():
    sides = Divided([(f"c{n}", f"prompt{n}") for n in range(2000)], share=0.2).split
    assert 0.17 < sides.num_eval_groups / 2000 < 0.23


def test_growth_leaves_groups_on_their_side():
    before = Divided([(f"c{n}", f"prompt{n}") for n in range(200)])
    after = Divided([(f"c{n}", f"prompt{n}") for n in range(400)])
    assert all(after[f"prompt{n}"] == before[f"prompt{n}"] for n in range(200))


def test_seed_changes_the_sides():
    seen = [(f"c{n}", f"prompt{n}") for n in range(50)]
    one, other = Divided(seen), Divided(seen, seed=1)
    assert any(one[text] != other[text] for _, text in seen)


def frozen(sides: dict[str, bool]) -> pl.DataFrame:
    names = stable_hash(pl.Series(list(sides)))
    return pl.DataFrame({"conversation": names, "is_eval": list(sides.values())})


@pytest.mark.parametrize(("was_eval", "side"), [(True, EVAL), (False, TRAIN)])
def test_a_decided_conversation_keeps_its_side_whatever_the_seed(was_eval: bool, side: str):
    seen = [(f"c{n}", f"prompt{n}") for n in range(9)]
    assert {Divided(seen, seed=seed, frozen=frozen({"c4": was_eval}))["prompt4"] for seed in range(20)} == {side}


def test_groups_that_grow_together_are_held_out_if_one_of_them_was():
    seen = [("c1", "Bread?"), ("c2", "Honey?"), ("new", "Bread?"), ("new", "Honey?"), ("c3", "Salt?"), ("c4", "Tea?")]
    sides = Divided(seen, frozen=frozen({"c1": False, "c2": True}))
    assert sides["Bread?"] == sides["Honey?"] == EVAL
    kept = dict(sides.split.conversations.iter_rows())
    assert all(kept[name] for name in frozen({"c1": True, "c2": True, "new": True})["conversation"])


HUBBED = [*((f"h{n}", "Hello!") for n in range(30)), *((f"c{n}", f"prompt{n}") for n in range(200))]


def test_prompt_in_many_conversations_is_trained_on_and_joins_nothing():
    sides = Divided([*HUBBED, *((f"h{n}", f"then{n}") for n in range(30))], seed=3, share=0.5)
    assert sides.split.num_hubs == 1
    assert sides["Hello!"] == TRAIN
    assert {sides[f"then{n}"] for n in range(30)} == {TRAIN}  # their conversations hold a greeting that is trained on
    assert sides.num_groups == 230


def test_hub_that_was_held_out_before_stays_so():
    sides = Divided(HUBBED, frozen=frozen({"h3": True}))
    assert (sides.split.num_hubs, sides["Hello!"]) == (0, EVAL)


def test_hub_may_not_touch_what_was_held_out_before():
    seen = [*HUBBED, ("h3", "Elsewhere?"), ("old", "Elsewhere?")]
    sides = Divided(seen, frozen=frozen({"old": True}))
    assert sides["Hello!"] == sides["Elsewhere?"] == EVAL


def test_few_prompts_asked_often_are_no_hubs():
    sides = Divided([(f"c{n}-{m}", f"prompt{n}") for n in range(10) for m in range(40)], share=0.4)
    assert sides.split.num_hubs == 0
    assert sides.split.num_eval_groups > 0


def test_group_with_most_of_the_conversations_is_trained_on():
    seen = [*((f"c{n}", "Hello!") for n in range(15)), ("d1", "Bread?"), ("d2", "Salt?")]
    assert {Divided(seen, share=0.9, seed=seed)["Hello!"] for seed in range(10)} == {TRAIN}


def test_group_that_all_others_grew_into_stays_held_out():
    seen = [("c1", "Hello!"), ("c2", "Bread?")]
    sides = Divided([*seen, ("c1", "Bread?")], frozen=frozen({"c1": False, "c2": True}))
    assert sides["Hello!"] == sides["Bread?"] == EVAL


def test_newest_groups_are_held_out_by_time_and_stay_undecided():
    seen = [(f"c{n}", f"prompt{n}") for n in range(40)]
    sides = Divided(seen, first_at={"c7": 100.0, "c8": 100.0}, recent_since=50.0, frozen=frozen({"c8": False}))
    assert sides["prompt7"] in (RECENT, EVAL)
    assert sides["prompt8"] == TRAIN
    assert len(sides.split.conversations) == 40 - sides.split.num_recent_groups


words = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"])
texts = st.lists(words, max_size=14).map(" ".join)
thresholds = st.sampled_from([0.3, 0.5, 0.8, 1.0])
conversations = st.sampled_from(["c1", "c2", "c3", "c4", "c5"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(conversations, texts), max_size=20), thresholds, st.integers(1, 4))
def test_no_prompt_conversation_or_near_duplicate_on_both_sides(seen: Seen, threshold: float, hub: int):
    sides = Divided(seen, near=threshold, share=0.5, hub_conversations=hub)
    assert leaks(seen, sides, threshold) == []


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(conversations, texts), max_size=12),
    st.lists(st.tuples(st.sampled_from(["c1", "c3", "n1", "n2"]), texts), max_size=12),
    st.integers(1, 4),
)
def test_what_was_held_out_is_never_trained_on_later(seen: Seen, more: Seen, hub: int):
    first = Divided(seen, share=0.5, hub_conversations=hub)
    later = Divided([*seen, *more], share=0.5, hub_conversations=hub, frozen=first.split.conversations)
    assert leaks([*seen, *more], later, 0.8) == []
    assert [text for _, text in seen if first[text] == EVAL and later[text] != EVAL] == []
