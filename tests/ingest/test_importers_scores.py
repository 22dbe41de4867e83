import pytest

from ratchet.errors import UserError
from ratchet.ingest.importers.scores import parse_rules


@pytest.mark.parametrize(
    ("rule", "value", "verdict"),
    [
        ("0..10", 0, ("rating", 1)),
        ("0..10", 10.0, ("rating", 5)),
        ("0..10", 5, ("rating", 3)),
        ("1..0", 0.0, ("rating", 5)),
        ("1..0", 1, ("rating", 1)),
        ("-1..1", 0, ("rating", 3)),
        ("0..10", 11, None),
        ("0..10", float("nan"), None),
        ("0..10", 10**400, None),
        ("0..10", True, None),
        ("0..10", "7", None),
        ("thumb", True, ("thumb", 1)),
        ("thumb", False, ("thumb", -1)),
        ("thumb", 1, ("thumb", 1)),
        ("thumb", 0.0, ("thumb", -1)),
        ("thumb", -1, ("thumb", -1)),
        ("thumb", 0.5, None),
        ("thumb", 10**400, None),
        ("rude,cold/kind", " Kind ", ("thumb", 1)),
        ("rude,cold/kind", "cold", ("thumb", -1)),
        ("rude,cold/kind", "warm", None),
        ("true/false", True, ("thumb", -1)),
    ],
)
def test_a_rule_reads_what_it_covers_and_nothing_else(rule: str, value: object, verdict: object):
    assert parse_rules([f"name={rule}"])["name"].read(value) == verdict


def test_a_name_may_hold_an_equals_sign():
    assert list(parse_rules(["a=b=thumb"])) == ["a=b"]


@pytest.mark.parametrize(
    "text",
    ["thumb", "=thumb", "a=", "a=0..", "a=1..1", "a=0..inf", "a=x..y", "a=good", "a=/x", "a=x/", "a=x/y/z", "a=x/X"],
)
def test_what_is_no_rule_is_refused_with_the_forms_that_are(text: str):
    with pytest.raises(UserError, match=r"NAME=WORST\.\.BEST"):
        parse_rules([text])
