import json
from typing import Any

import pytest

from ratchet.ingest.importers.chat import answer_of, prompt_of
from ratchet.ingest.importers.intake import Unmappable

USER, BOT = {"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}
LANGCHAIN = {"lc": 1, "type": "constructor", "id": ["langchain", "HumanMessage"], "kwargs": {"content": "Why?"}}
PICTURE = {"role": "user", "content": [{"type": "text", "text": "Why?"}, {"type": "image_url", "image_url": {}}]}


@pytest.mark.parametrize(
    "value",
    [
        "Why?",
        [USER],
        USER,
        {"messages": [USER]},
        {"messages": [[LANGCHAIN]]},
        {"question": "Why?", "top_k": 3},
        {"prompt": "Why?", "model": "m"},
        {"input": {"messages": [USER]}},
        json.dumps([USER]),
        [{"message": USER}],
        {"role": "user", "parts": [{"type": "text", "content": "Why?"}]},
        [{"type": "human", "data": {"content": "Why?"}}],
        {"role": "human", "content": [{"type": "text", "text": "Why?"}]},
    ],
)
def test_prompts_of_many_makes_are_one(value: Any):
    assert prompt_of(value) == [USER]


@pytest.mark.parametrize(
    "value",
    [
        "So.",
        [USER, BOT],
        BOT,
        {"messages": [USER, BOT]},
        {"choices": [{"message": BOT}]},
        {"answer": "So."},
        {"generations": [[{"text": "So.", "message": {}}]]},
        [{"type": "text", "text": "So."}],
        json.dumps(BOT),
        {"output": {"content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "So."}]}},
        {"result": "So.", "tokens": 2},
    ],
)
def test_answers_of_many_makes_are_one(value: Any):
    assert answer_of(value) == "So."


def test_an_answer_in_json_stays_json():
    assert answer_of('{"city": "Lima"}') == '{"city": "Lima"}'
    assert answer_of("[1, 2]") == "[1, 2]"


@pytest.mark.parametrize(
    "value",
    [None, "", "  ", [], {}, 7, [PICTURE], {"a": "x", "b": "y"}, [{"role": "robot", "content": "x"}], [[]], [None]],
)
def test_what_is_no_prompt_is_refused(value: Any):
    with pytest.raises(Unmappable):
        prompt_of(value)


@pytest.mark.parametrize(
    "value",
    [None, "", [], {}, 7, [{"type": "tool_call", "name": "x"}], {"role": "assistant", "content": None}, {"a": {}}],
)
def test_what_is_no_answer_is_refused(value: Any):
    with pytest.raises(Unmappable):
        answer_of(value)


def test_objects_within_objects_end_somewhere():
    value: Any = "deep"
    for _ in range(100):
        value = {"output": value, "input": value}
    for read in (answer_of, prompt_of):
        with pytest.raises(Unmappable):
            read(value)
