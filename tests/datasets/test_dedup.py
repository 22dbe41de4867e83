from ratchet.config import BuildDatasets, Config
from ratchet.datasets.build_datasets import decide
from ratchet.datasets.eligibility import assess_eligibility
from ratchet.datasets.interning import intern
from ratchet.datasets.training_rows import Rows
from support.triplet_factory import correction, frame, thumb

LONG = "Bread is made of flour, water, salt and time, and of all of these time is what bakers lack the most, they say"


def make(*votes: dict) -> tuple[Rows, list[tuple[str, str]]]:
    texts = intern(frame(*votes))
    rows = decide(assess_eligibility(texts, BuildDatasets()), texts, Config(), None)[0]
    drops = zip(texts.triplet_ids.gather(rows.drops["row"]), rows.drops["reason"], strict=True)
    return rows, list(drops)


def test_of_nearly_equal_answers_to_nearly_equal_prompts_the_best_supported_stays():
    votes = [thumb("ann", LONG, prompt="What is bread?"), thumb("bob", LONG, prompt="What is bread?")]
    rows, drops = make(copy := thumb("eve", f"{LONG} so", prompt="what is  Bread"), *votes)
    assert drops == [(copy["triplet_id"], "near_duplicate")]
    assert len(rows.kto) == len(rows.sft) == 1


def test_equal_answers_to_other_prompts_stay():
    assert make(thumb("ann", LONG, prompt="What is bread?"), thumb("bob", LONG, prompt="Who bakes?"))[1] == []


def test_nearly_equal_answers_of_which_one_is_disliked_stay():
    assert make(thumb("ann", LONG), thumb("bob", f"{LONG} so", -1))[1] == []


def test_correction_of_a_word_is_a_pair_all_the_same():
    rows, drops = make(correction("ann", LONG, f"{LONG} so"))
    assert (len(rows.dpo), drops) == (1, [])
