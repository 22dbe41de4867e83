import json

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from ratchet.datasets.prompts import prompt_texts
from ratchet.digest import canonical_json

roles = st.sampled_from(["system", "user", "assistant"])
chats = st.lists(st.fixed_dictionaries({"role": roles, "content": st.text(max_size=12)}), max_size=4)


@given(st.lists(chats, max_size=5))
def test_text_is_what_turns_say_without_system_messages(some):
    messages = [canonical_json(chat).decode() for chat in some]
    expected = ["\n".join(turn["content"] for turn in chat if turn["role"] != "system") for chat in some]
    assert prompt_texts(pl.Series(messages, dtype=pl.String)).to_list() == expected


def test_json_with_spaces_is_read_too():
    messages = json.dumps([{"role": "user", "content": 'Say "hi"'}])
    assert prompt_texts(pl.Series([messages])).to_list() == ['Say "hi"']
