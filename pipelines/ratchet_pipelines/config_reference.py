"""Describe ratchet.yaml from its model: JSON schema, commented YAML, and each key with its type, default and source."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ratchet.config import Config, Section, check_config, read_settings, section_of

DIALECT = "https://json-schema.org/draft/2020-12/schema"
SCHEMA_FILE = "ratchet.schema.json"
SCHEMA_LINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"
WIDTH = 80
ABOUT_FILE = (
    "Each key has its meaning above it. A key with `#` before it has its default: remove the `#` to set it. "
    f"Editors complete and check this file against {SCHEMA_FILE}; `ratchet config schema > {SCHEMA_FILE}` writes it."
)
SELF_EVIDENT = ("", "above 0", "at least 0")
BOUNDS = {"exclusiveMinimum": "above", "minimum": "at least", "exclusiveMaximum": "below", "maximum": "at most"}


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key or a section of ratchet.yaml, with its value in one configuration."""

    name: str
    """Dotted, as `train_adapter.lora.r`."""
    description: str
    value: Any
    default: Any
    type: str = "section"
    limits: str = ""
    """Its choices or bounds, as `above 0, at most 1`."""
    source: str = ""
    """`default`, or the name of the file or profile that sets it; empty for a section."""

    @property
    def is_section(self) -> bool:
        return self.type == "section"

    @property
    def level(self) -> int:
        return self.name.count(".")

    @property
    def label(self) -> str:
        return self.name.rpartition(".")[2]


def read_keys(path: Path, source: str) -> list[Key]:
    """Return every key in the order of the file, with its value in `path`. Raises UserError for a faulty file."""
    given = read_settings(path)
    return list(_walk(Config, check_config(path, given), Config(), given, source))


def _walk(
    section: type[Section], config: Section, default: Section, given: Any, source: str, prefix: str = ""
) -> Iterator[Key]:
    properties = json_schema_of(section)["properties"]
    for label, field in section.model_fields.items():
        value, usual = getattr(config, label), getattr(default, label)
        is_given = isinstance(given, Mapping) and label in given
        if inner := section_of(field.annotation):
            about = field.description or " ".join((inner.__doc__ or "").split())
            yield Key(name=prefix + label, description=about, value=value, default=usual)
            below = given[label] if is_given else {}
            yield from _walk(inner, value, usual, below, source, f"{prefix}{label}.")
        else:
            yield Key(
                name=prefix + label,
                description=field.description or "",
                value=value,
                default=usual,
                type=type_words(properties[label]),
                limits=_limits(properties[label]),
                source=source if is_given else "default",
            )


def type_words(schema: Mapping[str, Any]) -> str:
    """Say in words which values a key takes, from its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(type_words(choice) for choice in schema["anyOf"])
    return (
        f"one of {_limits(schema)}" if "enum" in schema else ", ".join(filter(None, [schema["type"], _limits(schema)]))
    )


def _limits(schema: Mapping[str, Any]) -> str:
    """Say a key's choices or bounds."""
    choices = schema.get("anyOf", [schema])[0]
    if "enum" in choices:
        return ", ".join(map(str, choices["enum"]))
    return ", ".join(f"{words} {choices[bound]:,g}" for bound, words in BOUNDS.items() if bound in choices)


def json_schema_of(section: type[Section] = Config) -> dict[str, Any]:
    """Return the JSON schema (draft 2020-12) of ratchet.yaml, or of one of its sections.

    Checks over several keys, as that `nf4` needs `cuda`, are not in it: only loading the file finds those.
    """
    schema = section.model_json_schema()
    for part in (schema, *schema.get("$defs", {}).values()):
        for key in part["properties"].values():
            key.pop("title", None)
            if "$ref" in key:  # null: a section whose keys are all commented out
                key["anyOf"] = [{"$ref": key.pop("$ref")}, {"type": "null"}]
                key.pop("default", None)
    return {"$schema": DIALECT, **schema}


def plain(value: Any) -> str:
    """Return a value as YAML writes it in one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("\n").removesuffix("\n...")


def commented_yaml(path: Path) -> str:
    """Return a whole ratchet.yaml with the settings of a profile, and every other key commented out at its default.

    The profile's first comment and those at the end of its lines are kept.
    """
    heading, notes = _comments(path.read_text(encoding="utf-8"))
    lines = [SCHEMA_LINE, *_comment(heading), "#", *_comment(ABOUT_FILE)]
    level = 1
    for key in read_keys(path, "profile"):
        indent = "  " * key.level
        if key.is_section or key.level < level:
            lines.append("")
        level = key.level
        if key.is_section:
            lines += [*_comment(key.description, indent), f"{indent}{key.label}:"]
            continue
        limits = f" ({key.limits})" if key.limits not in SELF_EVIDENT else ""
        mark = "#" if key.source == "default" else ""
        note = f"  # {notes[key.name]}" if key.name in notes else ""
        lines += _comment(key.description + limits, indent)
        lines.append(f"{indent}{mark}{key.label}: {plain(key.value)}{note}")
    return "\n".join(lines) + "\n"


def _comment(text: str, indent: str = "") -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ", break_on_hyphens=False
    )


def _comments(text: str) -> tuple[str, dict[str, str]]:
    """Return a profile's heading, and the comment at the end of a line by the dotted key that it follows."""
    lines = text.splitlines()
    heading = next(line for line in lines if line.startswith("# ") and line != SCHEMA_LINE)
    notes: dict[str, str] = {}

    def visit(node: yaml.Node, name: str) -> None:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                visit(value, f"{name}.{key.value}".removeprefix("."))
        elif note := re.fullmatch(r"[\s}]*# (.*)", lines[node.end_mark.line][node.end_mark.column :]):
            notes[name] = note[1]

    if (root := yaml.compose(text, yaml.SafeLoader)) is not None:
        visit(root, "")
    return heading.removeprefix("# "), notes
