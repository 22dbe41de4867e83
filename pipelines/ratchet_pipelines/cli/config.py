"""`ratchet profile` and `ratchet config`: write, show, explain and publish ratchet.yaml."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ratchet.config import KEYS, load_config, read_settings, unknown_key
from ratchet.digest import digest_bytes
from ratchet.errors import UserError
from ratchet.store import open_lake
from ratchet_pipelines.cli.options import DEFAULT_PROFILE, AsJson, ConfigFile, Lake, one_of
from ratchet_pipelines.config_reference import Key, commented_yaml, json_schema_of, plain, read_keys
from ratchet_pipelines.profiles import profile_names, profile_path

app = typer.Typer(help="Show, explain, check and publish the settings in ratchet.yaml.", no_args_is_help=True)
out = Console(highlight=False)
MAX_COLUMN = 56  # where the comments of `config show` stand, unless a line is longer


def profile(
    name: Annotated[
        str,
        typer.Argument(
            help=f"Profile to start from: {', '.join(profile_names())}.",
            **one_of("profile", profile_names, is_listed=False),
        ),
    ],
) -> None:
    """Print a whole ratchet.yaml: a profile's settings, and every other key with its meaning and default."""
    print(commented_yaml(profile_path(name)), end="")


@app.command()
def show(
    config: ConfigFile = None,
    is_changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from the default.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the settings in effect as YAML, and where each comes from: the default, the file, the profile."""
    keys = _keys(config)
    shown = [key for key in keys if not key.is_section and not (is_changed and key.value == key.default)]
    if as_json:
        print(json.dumps({key.name: {"value": key.value, "from": key.source} for key in shown}, indent=1))
        return
    names = [key.name for key in shown]
    sections = [key for key in keys if key.is_section and any(name.startswith(f"{key.name}.") for name in names)]
    lines = [
        (f"{'  ' * key.level}{key.label}:" + ("" if key.is_section else f" {plain(key.value)}"), key.source)
        for key in keys
        if key in shown or key in sections
    ]
    column = min(MAX_COLUMN, max((len(line) for line, _ in lines), default=0))
    print("\n".join(f"{line:<{column}}  # {source}" if source else line for line, source in lines) or "{}")


@app.command("json")
def as_one_line(config: ConfigFile = None) -> None:
    """Print a ratchet.yaml as JSON on one line, to paste into a form, as Kubeflow's, that has one line.

    Only the settings of the file: all others have their defaults there too.
    """
    path = config or profile_path(DEFAULT_PROFILE)
    load_config(path)
    print(json.dumps(read_settings(path)))


@app.command()
def publish(config: ConfigFile = None, lake: Lake = "lake") -> None:
    """Put a ratchet.yaml into the lake under its digest, and print URI@DIGEST, which Kubeflow's form takes.

    The same file is put there once. No secrets: the lake keeps it.
    """
    path = config or profile_path(DEFAULT_PROFILE)
    load_config(path)
    data = path.read_bytes()
    digest, store = digest_bytes(data), open_lake(lake)
    uri = f"configs/{digest[:12]}/ratchet.yaml"
    store.create_if_absent(uri, data)
    print(f"{store.root}/{uri}@{digest}")


@app.command()
def schema() -> None:
    """Print the JSON schema (draft 2020-12) of ratchet.yaml, with which editors complete and check it."""
    print(json.dumps(json_schema_of(), indent=1))


@app.command()
def explain(
    name: Annotated[
        str, typer.Argument(metavar="KEY", help="A key or a section by its dotted name, as train_adapter.lora.r.")
    ],
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Explain a key of ratchet.yaml, or all of a section: meaning, type, bounds, default, current value."""
    if name not in KEYS:
        raise UserError(unknown_key(name))
    keys = _keys(config)
    chosen = next(key for key in keys if key.name == name)
    inside = [key for key in keys if key.name.startswith(f"{name}.") and not key.is_section]
    if as_json:
        print(json.dumps(_as_dict(chosen) if not chosen.is_section else [_as_dict(key) for key in inside], indent=1))
        return
    out.print(f"[bold]{name}[/bold]: {escape(chosen.description)}")
    table = Table(box=None, show_header=chosen.is_section, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    if chosen.is_section:
        for heading in ("key", "value", "meaning"):
            table.add_column(heading, overflow="fold")
        for key in inside:
            default = "" if key.value == key.default else f"; default {plain(key.default)}, here from {key.source}"
            about = f"{key.description} ({key.type}{default})"
            table.add_row(key.name.removeprefix(f"{name}."), escape(plain(key.value)), escape(about))
    else:
        origin = f"from {chosen.source}" if chosen.source != "default" else "the default"
        value = f"{plain(chosen.value)} ({origin})"
        for label, text in (("type", chosen.type), ("default", plain(chosen.default)), ("value", value)):
            table.add_row(label, escape(text))
    out.print()
    out.print(table)
    if chosen.is_section:
        out.print("\nA value is the default unless its meaning names another.", style="dim")


def _keys(config: Path | None) -> list[Key]:
    if config is None:
        return read_keys(profile_path(DEFAULT_PROFILE), f"profile {DEFAULT_PROFILE}")
    return read_keys(config, config.name)


def _as_dict(key: Key) -> dict[str, Any]:
    return {
        "key": key.name,
        "description": key.description,
        "type": key.type,
        "default": key.default,
        "value": key.value,
        "from": key.source,
    }
