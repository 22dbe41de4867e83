"""What lands as Parquet is the same rows as what lands as JSON."""

import json

import polars as pl
import pytest

from ratchet.collection import decode_json, decode_parquet
from ratchet.collection.decode_parquet import WrongColumns
from support.event_factory import NOW_S, interaction, vote

SERVED = decode_json.interactions(
    [
        event.model_dump_json().encode()
        for event in (
            interaction("a", response='quoted " and \\ and \n', params={"t": 0.7, "n": [1]}, propensity=0.5),
            interaction("b", messages=[{"role": "system", "content": "é\x01\x7f"}, {"role": "user", "content": ""}]),
            interaction("c", messages=[], unheard_of={"b": 1, "a": None}),
        )
    ]
)[0]
VOTES = decode_json.feedback(
    [
        event.model_dump_json().encode()
        for event in (vote("f", "a", tenant="acme", arm="canary"), vote("g", "b", "correction", "so"))
    ]
)[0]


def test_rows_of_the_table_stay_as_they_are():
    assert decode_parquet.interactions(SERVED)[0].equals(SERVED)
    assert decode_parquet.feedback(VOTES)[0].equals(VOTES)


def test_columns_with_a_default_may_be_absent():
    needed = ["interaction_id", "conversation_id", "subject_id", "messages", "response", "base_model", "served_at"]
    rows, faults = decode_parquet.interactions(SERVED.select(needed))
    assert not faults
    assert set(rows["consent_training"]) == {"unknown"}
    assert set(rows["params"]) == {"{}"}
    rows, faults = decode_parquet.feedback(VOTES.drop("is_tie", "source", "extra", "comment", "is_retracted"))
    assert (faults, rows["is_tie"].to_list(), rows["source"].to_list()) == ([], [False] * 2, ["human"] * 2)


def test_numbers_may_come_in_other_widths():
    narrow = SERVED.with_columns(pl.col("prompt_tokens").cast(pl.Int16), pl.col("served_at").cast(pl.Int64))
    assert decode_parquet.interactions(narrow)[0].equals(SERVED)


def test_messages_and_params_become_canonical_however_they_are_written():
    spaced = [json.dumps(json.loads(text), indent=1) for text in SERVED["messages"]]
    loose = SERVED.with_columns(messages=pl.Series(spaced), params=pl.lit('{ "t": 0.70 }'))
    rows, faults = decode_parquet.interactions(loose)
    assert not faults
    assert rows["messages"].to_list() == SERVED["messages"].to_list()
    assert set(rows["params"]) == {'{"t":0.7}'}


@pytest.mark.parametrize(
    ("column", "value", "fault"),
    [
        ("interaction_id", "", "at least 1 character"),
        ("interaction_id", None, "valid string"),
        ("messages", "no JSON", "valid list"),
        ("messages", '[{"role":"user"}]', "Field required"),
        ("messages", "[" * 5000, "valid list"),
        ("params", "[1]", "valid dictionary"),
        ("consent_training", "maybe", "'granted'"),
        ("served_at", None, "valid number"),
        ("response", None, "valid string"),
    ],
)
def test_a_row_that_is_no_interaction_is_refused_alone(column: str, value: object, fault: str):
    kind = SERVED.schema[column]
    is_second = pl.col("interaction_id") == "b"
    broken = SERVED.with_columns(pl.when(is_second).then(pl.lit(value, kind)).otherwise(column).alias(column))
    rows, faults = decode_parquet.interactions(broken)
    assert (rows.height, [found.place for found in faults]) == (2, [1])
    assert fault in str(faults[0].error)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("kind", "cheer"),
        ("value_num", None),
        ("value_text", "x"),
        ("created_at", None),
        ("extra", '{"tenant":5}'),
    ],
)
def test_a_row_that_is_no_feedback_is_refused_alone(column: str, value: object):
    is_first = pl.col("feedback_id") == "f"
    broken = VOTES.with_columns(
        pl.when(is_first).then(pl.lit(value, VOTES.schema[column])).otherwise(column).alias(column)
    )
    rows, faults = decode_parquet.feedback(broken)
    assert (rows["feedback_id"].to_list(), [found.place for found in faults]) == (["g"], [0])


def test_times_that_no_calendar_has_are_for_the_contract_to_name():
    rows, faults = decode_parquet.feedback(VOTES.with_columns(created_at=pl.lit(float("inf"))))
    assert (rows.height, faults) == (2, [])
    assert rows["created_at"][0] > NOW_S


@pytest.mark.parametrize(
    ("table", "says"),
    [
        (VOTES.drop("kind"), "kind"),
        (VOTES.with_columns(mood=pl.lit(1)), "mood"),
        (VOTES.with_columns(feedback_id=pl.lit(7)), "feedback_id is Int32, not str"),
        (VOTES.with_columns(created_at=pl.lit("today")), "created_at is String, not float"),
    ],
)
def test_a_table_of_something_else_is_refused_as_a_whole(table: pl.DataFrame, says: str):
    with pytest.raises(WrongColumns, match=says):
        decode_parquet.feedback(table)
