"""`ratchet import`: other systems' feedback into the lake."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape

from ratchet.errors import UserError
from ratchet.events import Consent
from ratchet.store import open_store
from ratchet_pipelines.cli.options import AsJson, Lake

if TYPE_CHECKING:
    from ratchet.ingest.importers import Imported, Importer, Source

say = Console(stderr=True, highlight=False)


def import_(
    name: Annotated[
        str | None, typer.Argument(metavar="FORMAT", help="What wrote the files; --list names all.")
    ] = None,
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILE...", help="Feedback: files, or the URI of an MLflow server.")
    ] = None,
    lake: Lake = "lake",
    traces: Annotated[
        list[Path] | None, typer.Option(help="A file of prompts and answers, where they live apart. Repeatable.")
    ] = None,
    score: Annotated[
        list[str] | None,
        typer.Option(
            help="What a score means: NAME=thumb, NAME=WORST..BEST (a rating), NAME=BAD/GOOD (labels). Repeatable."
        ),
    ] = None,
    source: Annotated[
        Literal["human", "model", "code"] | None, typer.Option(help="Who judged, if you know better than the file.")
    ] = None,
    consent: Annotated[Consent, typer.Option(help="To train on these texts: whoever imports vouches.")] = "granted",
    experiment: Annotated[str, typer.Option(help="Of an MLflow server.")] = "Default",
    is_listed: Annotated[bool, typer.Option("--list", help="Name the formats and what each reads.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn other systems' feedback into events in the lake. Importing it twice changes nothing."""
    from ratchet.ingest.importers import IMPORTERS, Terms, import_sources
    from ratchet.ingest.importers.scores import parse_rules

    if is_listed:
        return _list(as_json)
    importer = IMPORTERS.get(name or "")
    if importer is None:
        raise UserError(f"import {name or ''}: no such format; known are {', '.join(sorted(IMPORTERS))}")
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
            name: {"about": one.about, "file": one.file, "traces": one.traces_file or None}
            for name, one in IMPORTERS.items()
        }
        print(json.dumps(known, indent=1))
        return
    for name, one in sorted(IMPORTERS.items()):
        print(f"{name:<11} {one.about}\n{'':<11} {one.file}")
        if one.traces_file:
            print(f"{'':<11} --traces {one.traces_file}")


def _report(imported: "Imported") -> None:
    for unit, flow in imported.flows.items():
        drops = ", ".join(f"{count:,} {reason}" for reason, count in flow.drops.items())
        say.print(
            f"{unit}: {flow.rows_in:,} rows in, {flow.rows_out:,} out; dropped: {drops or 'none'}", soft_wrap=True
        )
    if imported.scores_without_rule:
        names = ", ".join(f"{name} ({count:,})" for name, count in imported.scores_without_rule.items())
        say.print(f"Dropped, for nobody said what they mean: {escape(names)}. Say it: --score NAME=…", soft_wrap=True)
    for key in imported.quarantined:
        say.print(f"Kept as they were: {key}", soft_wrap=True)
