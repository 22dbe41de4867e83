"""The text by which prompts are compared: the chat without system messages, which all chats of a product share."""

import polars as pl

MESSAGE = pl.Struct({"role": pl.String, "content": pl.String})
# Most prompts are one user message; without escapes, its text is a substring of the JSON.
HEAD, TAIL = '[{"content":"', '","role":"user"}]'


def prompt_texts(messages: pl.Series) -> pl.Series:
    """Return the text of each chat (JSON): the contents of its turns without system messages, joined by line ends."""
    inner = messages.str.strip_prefix(HEAD).str.strip_suffix(TAIL)
    is_plain = (inner.str.len_bytes() + len(HEAD) + len(TAIL) == messages.str.len_bytes()) & ~inner.str.contains(
        r'["\\]'
    )
    if is_plain.all():
        return inner
    turns = messages.filter(~is_plain).str.json_decode(pl.List(MESSAGE)).to_frame("turns")
    is_spoken = pl.element().struct.field("role") != "system"
    contents = turns.select(
        pl.col("turns").list.eval(pl.element().struct.field("content").filter(is_spoken)).list.join("\n")
    ).to_series()
    place = ((~is_plain).cast(pl.Int64).cum_sum() - 1).clip(0)
    return inner.zip_with(is_plain, contents.gather(place))
