"""The data contract on triplets: load the expectation suite (`suite.json`) and compute each row's mask."""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ratchet.digest import digest_bytes

if TYPE_CHECKING:
    import polars as pl

    from ratchet.validation.compiler import Rule

SUITE = files(__package__).joinpath("suite.json")
KEY = "triplet_id"
ROLES = ("system", "developer", "user", "assistant", "tool", "function")
TURN = rf"""\{{"content":"[^"\\]*","role":"(?:{"|".join(ROLES)})"\}}"""
PLAIN = rf"\A\[{TURN}(?:,{TURN})*\]\z"


@cache
def drops() -> tuple[str, ...]:
    """Return the reasons to drop a triplet, one for each expectation; a row is counted under its first."""
    return tuple(expectation["meta"]["reason"] for expectation in load_suite()["expectations"])


def suite_digest() -> str:
    return digest_bytes(SUITE.read_bytes())


def load_suite() -> Any:
    return json.loads(SUITE.read_text(encoding="utf-8"))


def compile_rules(
    triplets: "pl.DataFrame", limits: Mapping[str, int], repeated: Sequence[str] = ()
) -> tuple["Rule", ...]:
    """Compile the suite for a table of triplets, with `limits` from the configuration as its parameters.

    `repeated` are ids that also occur outside the table.
    """
    from ratchet.validation.compiler import compile_suite

    schema = view(triplets.clear().lazy()).collect_schema()
    return compile_suite(load_suite(), schema, limits, KEY, repeated)


def judge_rows(triplets: "pl.DataFrame", rules: tuple["Rule", ...]) -> "pl.DataFrame":
    """Return the triplets with their `mask`: bit n is set where expectation n is not met.

    All rows of an id must be in `triplets`, unless the rules were compiled with it as `repeated`.
    """
    from ratchet.validation.compiler import mask

    masks = view(triplets.lazy()).select(mask(rules)).collect(engine="streaming")
    return triplets.with_columns(masks.to_series())


def view(triplets: "pl.LazyFrame") -> "pl.LazyFrame":
    """Return what the expectations check: the columns, counts of the prompt, which is JSON, and `answer`.

    An answer that is no text (a tool call, a refusal) may have an empty one: `answer` then says what it is instead.
    Most prompts are plain (no escapes, no fields except content and role) and are counted without parsing.
    """
    import polars as pl

    names = triplets.collect_schema().names()
    instead = {name: pl.col(name) if name in names else pl.lit(None) for name in ("beyond_text", "other_beyond_text")}
    messages = pl.col("messages")
    is_plain = messages.str.contains(PLAIN)
    role, content = (pl.element().struct.field(name) for name in ("role", "content"))
    message = pl.Struct({"role": pl.String, "content": pl.String})
    parsed = pl.when(~is_plain).then(messages).str.json_decode(pl.List(message))
    return triplets.with_columns(
        prompt_chars=pl.when(is_plain)
        .then(_plain_chars(messages))
        .otherwise(parsed.list.eval(content.str.len_chars()).list.sum()),
        answer=pl.coalesce(instead["beyond_text"], "response"),
        other_answer=pl.coalesce(instead["other_beyond_text"], "other_response"),
        unknown_roles=pl.when(is_plain).then(0).otherwise(parsed.list.eval(~role.is_in(ROLES)).list.sum()),
    )


def _plain_chars(messages: "pl.Expr") -> "pl.Expr":
    """Count the characters of a plain chat's contents: its JSON's less brackets, commas, roles and field names."""
    import polars as pl

    turns = {role: messages.str.count_matches(f'","role":"{role}"}}', literal=True) for role in ROLES}
    around = pl.sum_horizontal(count * len(f'{{"content":"","role":"{role}"}},') for role, count in turns.items())
    return messages.str.len_chars() - around - len("[]") + len(",")
