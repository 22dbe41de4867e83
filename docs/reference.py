"""Write the reference pages: every key of ratchet.yaml, every variable of the router, every command.

`python docs/reference.py` rewrites the parts of docs/configuration.md and docs/cli.md that stand between
`<!-- generated: NAME -->` and `<!-- end -->`; the words around them are written by hand. `make golden` does the same,
and tests/docs/test_reference.py fails while a page is older than the code.
"""

import dataclasses
import re
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import annotated_types
import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

import ratchet
from ratchet.config import Config
from ratchet.router.settings import RouterSettings

DOCS = Path(__file__).parent
CHECKOUT = Path(ratchet.__file__).parents[2]  # where the packages that are described lie
BOUNDS = {annotated_types.Gt: ">", annotated_types.Ge: "≥", annotated_types.Lt: "<", annotated_types.Le: "≤"}
TYPES = {str: "text", int: "integer", float: "number", bool: "true or false", Path: "path", type(None): "null"}
UNGROUPED = "Commands"


def configuration() -> str:
    """Every key of ratchet.yaml, a table for each section."""
    return "\n".join(_section("", Config))


def _section(path: str, model: type[BaseModel]) -> Iterator[str]:
    fields = model.model_fields.items()
    nested = {name: field.annotation for name, field in fields if _is_section(field.annotation)}
    rows = [_key_row(name, field) for name, field in fields if name not in nested]
    yield f"{'#' * (3 + path.count('.'))} {f'`{path}`' if path else 'Top level'}\n"
    # Only a class's own words: pydantic's base class would lend its docstring to one that has none.
    if path and (words := model.__dict__.get("__doc__")):
        yield f"{' '.join(words.split())}\n"
    yield _table(("key, default", "type and meaning"), rows) if rows else "No keys of its own yet.\n"
    for name, section in nested.items():
        yield from _section(f"{path}.{name}" if path else name, typing.cast(type[BaseModel], section))


def _key_row(name: str, field: FieldInfo) -> tuple[str, ...]:
    bounds = [f"{BOUNDS[type(bound)]} {_bound(bound)}" for bound in field.metadata if type(bound) in BOUNDS]
    kind = ", ".join([_type_words(field.annotation), *bounds])
    return f"`{name}` {_code(field.default)}", f"{kind}: {field.description}" if field.description else kind


def _bound(constraint: Any) -> Any:
    return next(value for value in dataclasses.astuple(constraint) if value is not None)


def router_variables() -> str:
    """Every variable that a router reads: RATCHET_ and the field's name in capitals."""
    fields = dataclasses.fields(RouterSettings)
    types = typing.get_type_hints(RouterSettings)
    rows = [(f"`RATCHET_{one.name.upper()}`", _type_words(types[one.name]), _default_words(one)) for one in fields]
    return _table(("variable", "type", "default"), rows)


def _default_words(field: "dataclasses.Field[Any]") -> str:
    return "required" if field.default is dataclasses.MISSING else _code(field.default)


def commands() -> str:
    """Every command with its help and options, under the panel that `ratchet --help` shows it in."""
    root = typing.cast(Any, typer.main.get_command(application()))
    panels: dict[str, list[str]] = {}
    for name, command in root.commands.items():
        if not command.hidden:
            panels.setdefault(_panel(command), []).extend(_command(f"ratchet {name}", command))
    return "\n".join(line for panel, lines in panels.items() for line in (f"## {panel}\n", *lines))


def application() -> typer.Typer:
    """The command line with all of its commands. Some versions of it add the steps only when they start."""
    from ratchet_pipelines.cli import main as cli

    if build := getattr(cli, "build_app", None):
        return typing.cast(typer.Typer, build())
    known = typing.cast(Any, typer.main.get_command(cli.app)).commands
    if not {"collect_triplets", "collect-triplets", "step"} & set(known):
        start, cli.guarded = cli.guarded, lambda program: None  # all that main() does, but run
        try:
            cli.main()
        finally:
            cli.guarded = start
    return cli.app


def _panel(command: Any) -> str:
    panel = getattr(command, "rich_help_panel", None)
    return panel if isinstance(panel, str) else UNGROUPED


def _command(words: str, command: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=words)
    usage = " ".join((words, *command.collect_usage_pieces(context)))
    yield f"### `{words}`\n\n{_prose(command.help or '')}\n\n    {usage}\n"
    if rows := [_parameter_row(one, context) for one in command.params if not one.hidden and one.name != "help"]:
        yield _table(("option", "type and meaning"), rows)
    for name, subcommand in getattr(command, "commands", {}).items():
        if not subcommand.hidden:
            yield from _command(f"{words} {name}", subcommand)


def _parameter_row(parameter: Any, context: Any) -> tuple[str, ...]:
    """Names and kind are what --help shows, as `--lake <str>`."""
    record = parameter.get_help_record(context)
    names, _, kind = (record[0] if record else parameter.name).partition(" <")
    default = parameter.default
    variables = [parameter.envvar] if isinstance(parameter.envvar, str) else (parameter.envvar or [])
    about = [f"{_kind_words(kind.rstrip('>'))}: " if kind else "", _prose(parameter.help or "")]
    if parameter.required:
        about.append(" Required.")
    elif default not in (None, False, (), []) and not callable(default):
        about.append(f" Default: {_code(default)}.")
    if variables:
        about.append(f" Environment: {', '.join(map(_code, variables))}.")
    return _code(names), "".join(about).strip()


def _kind_words(kind: str) -> str:
    """`list[str]` as "text, repeatable", `a|b` as its choices."""
    if found := re.fullmatch(r"list\[(.*)\]", kind):
        return f"{_kind_words(found[1])}, repeatable"
    if "|" in kind:
        return " or ".join(map(_code, kind.split("|")))
    return {"str": "text", "Path": "path", "int": "integer", "float": "number"}.get(kind, kind)


def _prose(text: str) -> str:
    """Help text as Markdown: one line, and no `<word>` that a browser would take for a tag."""
    return " ".join(text.split()).replace("<", "&lt;")


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _type_words(annotation: Any) -> str:
    arguments = typing.get_args(annotation)
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(map(_code, arguments))
    if arguments:
        return " or ".join(_type_words(one) for one in arguments)
    return TYPES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _code(value: Any) -> str:
    return f"`{_plain(value)}`" if _plain(value) else "empty"


def _plain(value: Any) -> str:
    """A value as YAML writes it; an empty text is nothing. A path in the checkout is given from its root on."""
    if isinstance(value, Path) and value.is_relative_to(CHECKOUT):
        return value.relative_to(CHECKOUT).as_posix()
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    # As an entity: of an escaped bar GitHub takes the backslash away, and Python-Markdown leaves it.
    lines = [heads, ("---",) * len(heads), *([cell.replace("|", "&#124;") for cell in row] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PARTS: dict[str, Callable[[], str]] = {
    "configuration": configuration,
    "router": router_variables,
    "commands": commands,
}
PAGES = ("configuration.md", "cli.md")


def renewed(page: str) -> str:
    """A page's text with its generated parts as the code is now."""

    def part(found: re.Match[str]) -> str:
        return f"<!-- generated: {found[1]} -->\n\n{PARTS[found[1]]()}\n<!-- end -->"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", part, page, flags=re.DOTALL)


def main() -> None:
    for name in PAGES:
        page = DOCS / name
        page.write_text(renewed(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
