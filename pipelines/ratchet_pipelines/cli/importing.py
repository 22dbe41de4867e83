"""`ratchet import`: turn other systems' feedback into events in the lake."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer
from rich.markup import escape

from ratchet.errors import UserError
from ratchet.events import Consent
from ratchet.store import open_store
from ratchet_pipelines.cli.options import AsJson, Lake, one_of
from ratchet_pipelines.console import say

if TYPE_CHECKING:
    from ratchet.ingest.importers import Imported, Importer, Source

Judges = Literal["human", "model", "code"]


def _format_names() -> list[str]:
    from ratchet.ingest.importers import IMPORTERS

    return sorted(IMPORTERS)


def import_(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Format of the files; --list names all.", **one_of("format", _format_names, is_listed=False)
        ),
    ] = None,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Feedback: files, or the URI of an MLflow server.")
    ] = None,
    lake: Lake = "lake",
    traces: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="File of prompts and answers, if they are not in FILE. Repeatable."),
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=MEANING",
            help="What a score means: NAME=thumb, NAME=WORST..BEST (a rating), NAME=BAD/GOOD (labels). Repeatable.",
        ),
    ] = None,
    source: Annotated[
        Judges | None,
        typer.Option(help="Who judged, in place of what the file says.", **one_of("source", lambda: get_args(Judges))),
    ] = None,
    consent: Annotated[
        Consent,
        typer.Option(
            help="The users' consent to training on these texts; only granted trains.",
            **one_of("consent", lambda: get_args(Consent)),
        ),
    ] = "granted",
    experiment: Annotated[str, typer.Option(help="Experiment on the MLflow server.")] = "Default",
    is_listed: Annotated[bool, typer.Option("--list", help="List the formats and what each reads.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn other systems' feedback into events in the lake. Importing it twice changes nothing.

    `ratchet import --list` names the formats: tracing tools, arena votes, datasets of preferences.
    """
    from ratchet.ingest.importers import IMPORTERS, Terms, import_sources
    from ratchet.ingest.importers.scores import parse_rules

    if is_listed:
        return _list(as_json)
    if name is None:
        raise UserError(f"import: name a FORMAT; known are {', '.join(sorted(IMPORTERS))}")
    importer = IMPORTERS[name]
    if not files and not traces:
        raise UserError(f"import {name}: name a file ({importer.file})")
    terms = Terms(consent=consent, scores=parse_rules(score or []), source=source)
    sources = _sources(importer, files or [], traces or [], experiment)
    imported = import_sources(open_store(lake), importer, sources, terms)
    _report(imported)
    if as_json:
        print(imported.model_dump_json())
    return None


def _sources(importer: "Importer", files: list[str], traces: list[Path], experiment: str) -> "list[Source]":
    from ratchet.ingest.importers import Source
    from ratchet.ingest.importers.mlflow import live

    if any("://" in file for file in files) and importer.name != "mlflow":
        raise UserError(f"import {importer.name}: only mlflow is read from a server; export a file ({importer.file})")
    return [
        *(Source.file_at(path, is_trace=True) for path in traces),
        *(live(file, experiment) if "://" in file else Source.file_at(Path(file)) for file in files),
    ]


def _list(as_json: bool) -> None:
    from ratchet.ingest.importers import IMPORTERS

    if as_json:
        known = {
            name: {"about": importer.about, "file": importer.file, "traces": importer.traces_file or None}
            for name, importer in IMPORTERS.items()
        }
        print(json.dumps(known, indent=1))
        return
    for name, importer in sorted(IMPORTERS.items()):
        print(f"{name:<11} {importer.about}\n{'':<11} {importer.file}")
        if importer.traces_file:
            print(f"{'':<11} --traces {importer.traces_file}")


def _report(imported: "Imported") -> None:
    for unit, flow in imported.flows.items():
        drops = ", ".join(f"{count:,} {reason}" for reason, count in flow.drops.items())
        say.print(
            f"{unit}: {flow.rows_in:,} rows in, {flow.rows_out:,} out; dropped: {drops or 'none'}", soft_wrap=True
        )
    if imported.scores_without_rule:
        names = ", ".join(f"{name} ({count:,})" for name, count in imported.scores_without_rule.items())
        say.print(f"Dropped scores of unknown meaning: {escape(names)}. Give it with --score NAME=…", soft_wrap=True)
    for key in imported.quarantined:
        say.print(f"Refused records are kept in {key}", soft_wrap=True)
