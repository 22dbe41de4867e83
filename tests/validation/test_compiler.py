import random
import re

import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from ratchet.errors import UserError
from ratchet.validation.compiler import compile_suite, mask, reasons
from ratchet.validation.expectations import EXPECTATIONS
from ratchet.validation.great_expectations import Disagreement, check_parity
from ratchet.validation.regex_to_rust import NotTranslatable, to_rust

# Characters on which engines differ: white space and digits beyond ASCII, line ends, marks, astral planes.
ODD = "aA0_ \t\n\r\x0b\x1c\x1f\x85\xa0\u1680\u2028\u3000\u180e\u200b٣²½é\u0301ßİ𝔸👩\u200d👧\u0000$^.|"
TEXTS = (
    st.none()
    | st.sampled_from(["", "a", "b", "a\n", "\na", "nan", "None", "\x1c", "👧", "é"])
    | st.text(ODD, max_size=6)
)
NUMBERS = st.none() | st.sampled_from([float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1.0, 5.0, 1e308, 0.1])
COUNTS = st.none() | st.integers(-3, 6)
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": TEXTS,
            "text": TEXTS,
            "other": TEXTS,
            "x": NUMBERS,
            "y": NUMBERS,
            "n": COUNTS,
            "is_tie": st.none() | st.booleans(),
        }
    ),
    min_size=1,
    max_size=30,
)
SCHEMA = {
    "id": pl.String,
    "text": pl.String,
    "other": pl.String,
    "x": pl.Float64,
    "y": pl.Float64,
    "n": pl.Int64,
    "is_tie": pl.Boolean,
}


def when(column: str, operator: str, parameter: object) -> dict[str, object]:
    return {"type": "comparison", "column": {"name": column}, "operator": operator, "parameter": parameter}


def null(column: str, is_null: bool) -> dict[str, object]:
    return {"type": "nullity", "column": {"name": column}, "is_null": is_null}


COLUMN = "expect_column_values_to_"
LENGTHS = "expect_column_value_lengths_to_"
PAIR = "expect_column_pair_values_"
PATTERNS = [
    r"\S", r"\s$", r"^a$", r"^\s*$", r"\d", r"^\w+\Z", r"[^\w\s]", r"a|^$", r"(?:a\n)+", r".", r"^[a-é]{1,2}?$",
    r"[\S\d]", r"\D\W", "[^a]", "^(?:a|b)$", "a.b", "\u3000", r"\$", r"^.?\n$",
]  # fmt: skip
EVERY = [
    (COLUMN + "not_be_null", {"column": "text"}),
    (COLUMN + "not_be_null", {"column": "x"}),
    (COLUMN + "not_be_null", {"column": "is_tie"}),
    (COLUMN + "be_null", {"column": "x"}),
    (COLUMN + "be_null", {"column": "n"}),
    (COLUMN + "be_unique", {"column": "id"}),
    (COLUMN + "be_unique", {"column": "id", "row_condition": when("n", ">", 1)}),
    (COLUMN + "be_in_set", {"column": "text", "value_set": ["a", "é", "nan", "None"]}),
    (COLUMN + "be_in_set", {"column": "x", "value_set": [-1, 1, 0]}),
    (COLUMN + "be_in_set", {"column": "n", "value_set": [1, 2.0]}),
    (COLUMN + "be_in_set", {"column": "is_tie", "value_set": [True]}),
    (COLUMN + "be_in_set", {"column": "text", "value_set": ["a"], "row_condition": when("is_tie", "==", True)}),
    (COLUMN + "not_be_in_set", {"column": "text", "value_set": ["", "a\n"]}),
    (COLUMN + "not_be_in_set", {"column": "x", "value_set": [5, 0.1]}),
    (COLUMN + "be_between", {"column": "x", "min_value": 0, "max_value": 5}),
    (COLUMN + "be_between", {"column": "x", "min_value": 0, "max_value": 5, "strict_min": True, "strict_max": True}),
    (COLUMN + "be_between", {"column": "x", "max_value": 1e308, "strict_max": True}),
    (COLUMN + "be_between", {"column": "n", "min_value": 0}),
    (COLUMN + "be_between", {"column": "n", "min_value": 0, "strict_min": True, "row_condition": when("x", "!=", 1)}),
    (LENGTHS + "be_between", {"column": "text", "min_value": 1, "max_value": 3}),
    (LENGTHS + "be_between", {"column": "text", "min_value": 1, "strict_min": True}),
    (LENGTHS + "be_between", {"column": "text", "max_value": 3, "strict_max": True}),
    (LENGTHS + "be_between", {"column": "other", "max_value": 2, "row_condition": when("text", "!=", "a")}),
    (LENGTHS + "equal", {"column": "text", "value": 1}),
    *[(COLUMN + "match_regex", {"column": "text", "regex": pattern}) for pattern in PATTERNS],
    *[(COLUMN + "not_match_regex", {"column": "other", "regex": pattern}) for pattern in PATTERNS[:6]],
    (COLUMN + "match_regex_list", {"column": "text", "regex_list": [r"a", r"\d"], "match_on": "all"}),
    (COLUMN + "match_regex_list", {"column": "text", "regex_list": [r"a", r"\d"], "match_on": "any"}),
    (COLUMN + "not_match_regex_list", {"column": "text", "regex_list": [r"a", r"\s"]}),
    *[
        (PAIR + "to_be_equal", {"column_A": a, "column_B": b, "ignore_row_if": ignore})
        for a, b in [("text", "other"), ("x", "y")]
        for ignore in ["both_values_are_missing", "either_value_is_missing", "neither"]
    ],
    *[
        (PAIR + "a_to_be_greater_than_b", {"column_A": "x", "column_B": b, "or_equal": equal, "ignore_row_if": ignore})
        for b in ["y", "n"]
        for equal in [True, False]
        for ignore in ["both_values_are_missing", "either_value_is_missing", "neither"]
    ],
    (PAIR + "to_be_in_set", {"column_A": "text", "column_B": "n", "value_pairs_set": [["a", 1], ["é", None], ["", 2]]}),
    *[
        ("expect_select_column_values_to_be_unique_within_record", {"column_list": columns, "ignore_row_if": ignore})
        for columns in [["id", "text", "other"], ["x", "y"]]
        for ignore in ["all_values_are_missing", "any_value_is_missing", "never"]
    ],
    *[
        (COLUMN + "not_be_null", {"column": "other", "row_condition": condition})
        for condition in [
            when("text", "==", "a"), when("text", "!=", "a"), when("text", "IN", ["a", "", "nan"]),
            when("text", "NOT_IN", ["a", "b"]), when("x", "<", 1), when("x", ">=", 0.0), when("n", "IN", [1, 2]),
            when("n", "NOT_IN", [1]), when("x", "NOT_IN", [1.0]), null("text", True), null("x", False),
            {"type": "and", "conditions": [when("x", "<=", 5), null("n", False)]},
            {"type": "or", "conditions": [
                when("x", ">", 5), {"type": "and", "conditions": [when("n", "==", 1), null("text", False)]},
            ]},
        ]
    ],
]  # fmt: skip


def suite_of(*expectations: tuple[str, dict[str, object]]) -> dict[str, object]:
    found = [
        {"type": name, "kwargs": kwargs, "meta": {"reason": f"{number}"}}
        for number, (name, kwargs) in enumerate(expectations)
    ]
    return {"name": "every", "expectations": found}


def agree(rows: list[dict[str, object]], expectations: list[tuple[str, dict[str, object]]]) -> None:
    frame = pl.DataFrame(rows, schema=SCHEMA)
    suite = suite_of(*expectations)
    rules = compile_suite(suite, frame.schema, {}, "id")
    check_parity(frame.with_columns(mask(rules)), [rule.reason for rule in rules], suite, {}, "id")


@pytest.mark.timeout(400)  # a few seconds alone; Great Expectations is slow where cores are shared
@pytest.mark.parametrize("half", [EVERY[::2], EVERY[1::2]])  # a mask has 63 bits
def test_the_mask_is_what_great_expectations_says(half: list[tuple[str, dict[str, object]]]):
    rng = random.Random(len(half))
    texts = [None, "", "a", "b", "a\n", "\na", "nan", "None", "é", *ODD]
    texts += ["".join(rng.choices(ODD, k=rng.randint(2, 6))) for _ in range(60)]
    numbers = [None, float("nan"), float("inf"), -float("inf"), -0.0, 0.0, 1.0, 5.0, 1e308, 0.1]
    pools = {"id": texts, "text": texts, "other": texts, "x": numbers, "y": numbers, "n": [None, *range(-3, 7)]}
    pools["is_tie"] = [None, True, False]
    agree([{name: rng.choice(pool) for name, pool in pools.items()} for _ in range(100)], half)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=20, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # to shrink would take minutes
@given(ROWS)
def test_the_mask_is_what_great_expectations_says_of_anything(rows: list[dict[str, object]]):
    agree(rows, EVERY[::2])
    agree(rows, EVERY[1::2])


def test_every_expectation_that_the_compiler_knows_is_compared():
    assert {name for name, _ in EVERY} == set(EXPECTATIONS)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_translated_pattern_finds_what_python_finds(pattern: str):
    rng = random.Random(0)
    letters = ODD + "".join(map(chr, rng.sample(range(0xD800), 500)))
    texts = ["", *letters, *("".join(rng.choices(letters, k=rng.randint(1, 5))) for _ in range(500))]
    found = pl.Series(texts).str.contains(to_rust(pattern)).to_list()
    assert found == [re.search(pattern, text) is not None for text in texts]


@pytest.mark.parametrize(
    "pattern", [r"\bword", r"(?i)a", r"(?=a)", r"(a)\1", r"a$\n", r"(?:a$)*b", "(", r"(?i:a)b", r"a++"]
)
def test_a_pattern_that_would_mean_something_else_is_refused(pattern: str):
    with pytest.raises(NotTranslatable):
        to_rust(pattern)


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("expect_column_mean_to_be_between", {"column": "x"}, "not among those it knows"),
        (COLUMN + "be_in_set", {"column": "x", "value_set": ["1"]}, "compared with"),
        (COLUMN + "be_in_set", {"column": "gone", "value_set": ["1"]}, "no column gone"),
        (COLUMN + "be_in_set", {"column": "x"}, "value_set"),
        (COLUMN + "be_between", {"column": "text", "max_value": 1}, "for numbers"),
        (COLUMN + "be_between", {"column": "x"}, "neither"),
        (COLUMN + "match_regex", {"column": "text", "regex": r"\b"}, "word boundary"),
        (COLUMN + "be_unique", {"column": "text"}, "unique text"),
        (COLUMN + "not_be_null", {"column": "x", "mostly": 0.9}, "max_bad_share"),
        (COLUMN + "not_be_null", {"column": "x", "parse": True}, "parse"),
        (COLUMN + "not_be_null", {"column": "x", "row_condition": {"type": "pass_through"}}, "pass_through"),
        (COLUMN + "be_between", {"column": "x", "max_value": {"$PARAMETER": "most"}}, "parameter most"),
    ],
)
def test_what_the_compiler_does_not_know_is_refused_by_name(name: str, kwargs: dict[str, object], words: str):
    with pytest.raises(UserError, match=rf"{name} \(0\) cannot be compiled: .*{words}"):
        compile_suite(suite_of((name, kwargs)), SCHEMA, {}, "id")


def test_a_suite_of_more_rules_than_bits_is_refused():
    with pytest.raises(UserError, match="64 expectations; the most is 63"):
        compile_suite(suite_of(*[(COLUMN + "be_null", {"column": "x"})] * 64), SCHEMA, {}, "id")


def test_reasons_come_back_from_the_mask_in_the_order_of_the_suite():
    suite = suite_of((COLUMN + "be_null", {"column": "x"}), (COLUMN + "not_be_null", {"column": "text"}))
    rows = pl.DataFrame({"x": [1.0, None, 1.0], "text": ["a", "a", None]})
    rules = compile_suite(suite, rows.schema, {}, "id")
    judged = rows.select(mask(rules)).with_columns(reasons(rules).alias("reasons"))
    assert judged.rows() == [(1, ["0"]), (0, []), (3, ["0", "1"])]


def test_a_wrong_mask_is_found_out_with_both_counts():
    suite = suite_of((COLUMN + "be_null", {"column": "x"}))
    rows = pl.DataFrame({"id": ["a", "b"], "x": [1.0, 2.0]})
    with pytest.raises(Disagreement, match=r"0: 1 rows by the mask, 2 by Great Expectations \(\['b'\]"):
        check_parity(rows.with_columns(mask=pl.Series([1, 0])), ["0"], suite, {}, "id")
