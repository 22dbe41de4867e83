"""Patterns for malformed answers, refusals and personal data."""

import pytest

from ratchet.evaluation.text_checks import format_fault, is_refusal, personal_data


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Rain forms when vapour cools. The drops join and fall.", None),
        ("1. Switch off the lights.\n2. Use a kettle lid.\n3. Wash at thirty degrees.", None),
        ("A word cut at the limit ends in \ufffd", None),
        ("Half a letter \ufffd in the middle", "broken_text"),
        (" \n ...", "empty"),
        ("Hello<|im_start|>user", "control_tokens"),
        ("Fine.\nuser\nAnd now?", "control_tokens"),
        ("[INST] What?", "control_tokens"),
        ("the cat sat on " * 8, "repetition"),
        ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "repetition"),
    ],
)
def test_form(text: str, fault: str | None) -> None:
    assert format_fault(text) == fault


@pytest.mark.parametrize(
    "text",
    ["I'm sorry, but I can't help with that.", "I cannot write this.", "As an AI, I do not do that.", "I won’t do it."],
)
def test_refusals_are_seen(text: str) -> None:
    assert is_refusal(text)


@pytest.mark.parametrize("text", ["Sure! Open the terminal and type kill.", "You can't cut onions with a spoon."])
def test_answers_are_not_refusals(text: str) -> None:
    assert not is_refusal(text)


def test_personal_data_is_what_the_prompt_did_not_bring() -> None:
    assert personal_data("Write to Ann@example.org or +44 20 7946 0958.", "") == {"ann@example.org", "442079460958"}
    assert personal_data("I wrote to ann@example.org.", "My address is Ann@example.org") == set()


def test_years_and_long_numbers_are_no_personal_data() -> None:
    assert personal_data("From 1914-1918, about 1234567 people; pi is 3.14159.", "") == set()


def test_a_card_number_has_a_check_digit() -> None:
    assert personal_data("4111 1111 1111 1111", "") == {"4111111111111111"}
    assert personal_data("4111 1111 1111 1112", "") == set()
