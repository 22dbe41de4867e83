"""Reading Argo's objects for the linter: template tags, `depends`, and named entries. Pure functions on plain data."""

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any

Node = Mapping[str, Any]
TAG = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
OPERAND = re.compile(r"[\w-]+(?:\.\w+)?")


def tags(node: Any) -> set[str]:
    """Return the texts between `{{` and `}}` anywhere in the node."""
    return {tag.strip() for text in _strings(node) for tag in TAG.findall(text)}


def find(node: Any, key: str) -> Iterator[Any]:
    """Yield every value under this key, at any depth."""
    if isinstance(node, Mapping) and key in node:
        yield node[key]
    yield from chain.from_iterable(find(child, key) for child in _children(node))


def named(entries: Iterable[Node]) -> dict[str, Node]:
    return {entry["name"]: entry for entry in entries}


def parameters(holder: Node | None) -> dict[str, Node]:
    """Return the parameters of arguments, inputs or outputs, by name."""
    return named((holder or {}).get("parameters", []))


def operands(task: Node) -> list[str]:
    """Return the `task` and `task.Result` operands of `depends`."""
    return OPERAND.findall(task.get("depends", ""))


def parses(depends: str) -> bool:
    """Return whether the text is operands joined by &&, ||, ! and parentheses."""
    python = OPERAND.sub("x", depends).replace("&&", " and ").replace("||", " or ").replace("!", " not ")
    if re.search(r"[^\w\s()]", python):
        return False
    try:
        ast.parse(python.strip(), mode="eval")
    except SyntaxError:
        return False
    return True


def edges(tasks: Iterable[Node]) -> dict[str, set[str]]:
    """Return the tasks that each task waits for, by name."""
    return {task["name"]: {operand.partition(".")[0] for operand in operands(task)} for task in tasks}


def ancestors(name: str, graph: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    queue = [name]
    while queue:
        new = graph.get(queue.pop(), set()) - found
        found |= new
        queue += new
    return found


def _strings(node: Any) -> Iterator[str]:
    if isinstance(node, str):
        yield node
    yield from chain.from_iterable(map(_strings, _children(node)))


def _children(node: Any) -> Iterable[Any]:
    if isinstance(node, Mapping):
        return node.values()
    return node if isinstance(node, list) else ()
