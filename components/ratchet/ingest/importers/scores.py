"""Parse and apply the `--score` rules: the meaning of a number or label, which only the user knows.

A rule gives the worst value first: `helpfulness=0..10` makes ratings from 1 to 5, linear between the two ends (`1..0`
where less is better); `verdict=wrong/right` makes thumbs from labels, with commas between several on a side;
`like=thumb` is short for `false,0,-1/true,1`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ratchet.errors import UserError

THUMB = "false,0,-1/true,1"
FORM = "write NAME=thumb, NAME=WORST..BEST (0..10) or NAME=BAD/GOOD (wrong/right)"
LEAST, MOST = 1, 5  # a rating's ends
MAX_LABEL = 1e6  # larger numbers, and NaN, are not labels

Value = bool | float | str
Verdict = tuple[Literal["thumb", "rating"], float]


@dataclass(frozen=True)
class Scale:
    """A numeric scale; `worst` may be the larger end."""

    worst: float
    best: float

    def read(self, value: Value) -> Verdict | None:
        if isinstance(value, bool | str) or not min(self.worst, self.best) <= value <= max(self.worst, self.best):
            return None
        share = (value - self.worst) / (self.best - self.worst)
        return "rating", LEAST + share * (MOST - LEAST)


@dataclass(frozen=True)
class Labels:
    """Two sets of labels; booleans and numbers also count as labels."""

    bad: frozenset[str]
    good: frozenset[str]

    def read(self, value: Value) -> Verdict | None:
        label = _label(value)
        if label in self.good:
            return "thumb", 1
        return ("thumb", -1) if label in self.bad else None


Rules = Mapping[str, Scale | Labels]


def parse_rules(texts: Iterable[str]) -> Rules:
    """Parse rules (`NAME=RULE`) by score name. Raises UserError for an invalid one."""
    rules: dict[str, Scale | Labels] = {}
    for text in texts:
        name, _, rule = text.rpartition("=")
        if not name:
            raise UserError(f"--score {text}: {FORM}")
        rules[name] = _rule(text, THUMB if rule == "thumb" else rule)
    return rules


def _rule(text: str, rule: str) -> Scale | Labels:
    low, dots, high = rule.partition("..")
    if dots:
        try:
            scale = Scale(float(low), float(high))
        except ValueError:
            raise UserError(f"--score {text}: {rule} is not two numbers; {FORM}") from None
        if scale.worst == scale.best or not (math.isfinite(scale.worst) and math.isfinite(scale.best)):
            raise UserError(f"--score {text}: the two ends must be two finite numbers; {FORM}")
        return scale
    bad, good = (frozenset(map(_label, side.split(","))) for side in (rule + "/").split("/")[:2])
    if "" in bad | good or bad & good or rule.count("/") != 1:
        raise UserError(f"--score {text}: {FORM}")
    return Labels(bad, good)


def _label(value: Value) -> str:
    if isinstance(value, str):
        return value.strip().casefold()
    if isinstance(value, bool):
        return str(value).casefold()
    return f"{value:g}" if abs(value) <= MAX_LABEL else ""
