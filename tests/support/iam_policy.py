"""AWS's rules for reading policies, as far as ours use them: a request, and what policies make of it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

Statement = Mapping[str, Any]


@dataclass(frozen=True)
class Request:
    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)


def is_allowed(request: Request, statements: Iterable[Statement]) -> bool:
    """Some statement allows the request and none denies it."""
    effects = {one["Effect"] for one in statements if _applies(one, request)}
    return effects == {"Allow"}


def listed(value: str | list[str]) -> list[str]:
    """A policy may write one value without its list."""
    return [value] if isinstance(value, str) else value


def _applies(statement: Statement, request: Request) -> bool:
    return (
        any(fnmatchcase(request.action, pattern) for pattern in listed(statement["Action"]))
        and any(fnmatchcase(request.resource, pattern) for pattern in listed(statement["Resource"]))
        and all(
            _holds(test, request.context.get(key), listed(wanted))
            for test, keys in statement.get("Condition", {}).items()
            for key, wanted in keys.items()
        )
    )


def _holds(test: str, value: str | None, wanted: list[str]) -> bool:
    if test == "Null":
        return (value is None) == (wanted == ["true"])
    if test == "Bool":
        return value in wanted
    if test == "StringLike":
        return value is not None and any(fnmatchcase(value, pattern) for pattern in wanted)
    raise NotImplementedError(test)
