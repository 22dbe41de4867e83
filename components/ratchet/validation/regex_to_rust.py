r"""Translate Python's regular expressions to Rust's engine, with the same meaning, or refuse them.

Great Expectations searches with Python's `re`, Polars with Rust's `regex`. They differ in the non-ASCII characters
of `\s`, `\d` and `\w`, and in `$`, which in Python also matches before a last newline. So a pattern is parsed by Python
itself and written out again, with Python's classes as explicit characters and Python's meaning of `$`.
Look-around, back references, flags and word boundaries are refused.
"""

import re
from functools import cache
from typing import Any

PARSER: Any = re._parser  # type: ignore[attr-defined] # Python's own parser has no public name
LAST_CHARACTER = 0x10FFFF
SURROGATES = range(0xD800, 0xE000)
CATEGORIES = {
    "SPACE": r"\s", "NOT_SPACE": r"\S", "DIGIT": r"\d", "NOT_DIGIT": r"\D", "WORD": r"\w", "NOT_WORD": r"\W",
}  # fmt: skip


class NotTranslatable(ValueError):
    """The pattern has no equivalent in Rust's engine."""


def to_rust(pattern: str) -> str:
    """Return a Rust pattern that matches a text exactly when `re.search(pattern, text)` does.

    Raises NotTranslatable, which names the construct at fault.
    """
    try:
        parsed = PARSER.parse(pattern)
    except re.error as error:
        raise NotTranslatable(f"no regular expression: {error}") from None
    if parsed.state.flags & ~re.UNICODE:
        raise NotTranslatable("flags")
    return _sequence(list(parsed), is_last=True)


def _sequence(parts: list[Any], *, is_last: bool) -> str:
    ends = [is_last and place == len(parts) - 1 for place in range(len(parts))]
    return "".join(_part(str(op), value, is_last=end) for (op, value), end in zip(parts, ends, strict=True))


def _part(op: str, value: Any, *, is_last: bool) -> str:
    """Translate one element. `is_last` if nothing can follow it in a match: `$` is translatable only there."""
    match op:
        case "LITERAL":
            return _literal(value)
        case "NOT_LITERAL":
            return f"[^{_literal(value)}]"
        case "ANY":
            return r"[^\n]"
        case "IN":
            is_negated = str(value[0][0]) == "NEGATE"
            inside = "".join(_member(str(kind), member) for kind, member in value[is_negated:])
            return f"[{'^' if is_negated else ''}{inside}]"
        case "AT":
            return _anchor(str(value), is_last=is_last)
        case "BRANCH":
            return f"(?:{'|'.join(_sequence(list(way), is_last=is_last) for way in value[1])})"
        case "SUBPATTERN" if not (value[1] or value[2]):
            return f"(?:{_sequence(list(value[3]), is_last=is_last)})"
        case "MAX_REPEAT" | "MIN_REPEAT":
            low, high, part = value
            most = "" if high is PARSER.MAXREPEAT else str(int(high))
            lazy = "?" if op == "MIN_REPEAT" else ""
            return f"(?:{_sequence(list(part), is_last=False)}){{{int(low)},{most}}}{lazy}"
    raise NotTranslatable(op.lower().replace("_", " "))


def _anchor(place: str, *, is_last: bool) -> str:
    if place in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
        return r"\A"
    if place == "AT_END_STRING":
        return r"\z"
    if place == "AT_END" and is_last:
        return r"(?:\n?\z)"
    raise NotTranslatable("$ before the end" if place == "AT_END" else "a word boundary")


def _member(op: str, value: Any) -> str:
    if op == "LITERAL":
        return _literal(value)
    if op == "RANGE":
        return f"{_literal(value[0])}-{_literal(value[1])}"
    if op == "CATEGORY":
        return _category(str(value))
    raise NotTranslatable(op.lower())


def _literal(code: int) -> str:
    if code in SURROGATES:
        raise NotTranslatable("half of a character")
    return f"\\x{{{code:x}}}"


@cache
def _category(name: str) -> str:
    """Return the characters that Python itself matches with a class of `CATEGORIES`, as ranges."""
    sign = CATEGORIES[name.removeprefix("CATEGORY_")]
    spans = (match.span() for match in re.finditer(f"{sign}+", "".join(map(chr, range(LAST_CHARACTER + 1)))))
    ranges = []
    for first, end in spans:  # a range may neither begin nor end with a surrogate
        low = SURROGATES.stop if first in SURROGATES else first
        high = SURROGATES.start - 1 if end - 1 in SURROGATES else end - 1
        ranges.append(f"{_literal(low)}-{_literal(high)}")
    return "".join(ranges)
