"""Options and arguments that commands share: one name and one help text for one thing."""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

from ratchet.config import Config, load_config
from ratchet_pipelines.profiles import profile_path

DEFAULT_PROFILE = "local"


def one_of(what: str, choices: Callable[[], Iterable[str]], *, is_listed: bool = True) -> dict[str, Any]:
    """Return the arguments of a typer Option or Argument that takes one of these values.

    Hyphens and underscores are the same. Any other value is refused with the nearest. `choices` is called as late as
    possible, so that help stays fast; with `is_listed` help shows them.
    """

    def parse(value: str) -> str:
        known = list(choices())
        by_spelling = {choice.replace("_", "-"): choice for choice in known}
        if (choice := by_spelling.get(value.replace("_", "-"))) is not None:
            return choice
        nearest = difflib.get_close_matches(value, known, n=1)
        meant = f"; did you mean {nearest[0]!r}?" if nearest else "."
        raise typer.BadParameter(f"{value!r}: no such {what}{meant} Known are {', '.join(known)}.")

    def complete(incomplete: str) -> list[str]:
        return [choice for choice in choices() if choice.startswith(incomplete)]

    metavar = "|".join(choices()) if is_listed else what.upper()
    return {"parser": parse, "autocompletion": complete, "metavar": metavar}


def step_names() -> list[str]:
    """Return the steps' names as they are written at the command line."""
    from ratchet_pipelines.graph import STEPS

    return [step.name.replace("_", "-") for step in STEPS]


def writable_file(path: Path | None) -> Path | None:
    if path is not None:
        writable_folder(path.parent)
    return path


def writable_folder(path: Path | None) -> Path | None:
    """Make the folder before the work starts, so that a path that cannot be written costs no run."""
    try:
        if path is not None:
            path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}.") from None
    return path


Lake = Annotated[
    str,
    typer.Option("--lake", metavar="LAKE", help="The lake: a folder, or s3://bucket/prefix.", envvar="RATCHET_LAKE"),
]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help=f"ratchet.yaml; the profile `{DEFAULT_PROFILE}` without it.",
        envvar="RATCHET_CONFIG",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Seed = Annotated[int | None, typer.Option("--seed", help="Random seed; `seed` of ratchet.yaml without it.")]
Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--in",
        metavar="STEP=MANIFEST",
        help="Manifest of an input, relative to the lake. Once for each input.",
    ),
]
OUT_FILE = typer.Option("--out", metavar="FILE", help="HTML file to write.", dir_okay=False, callback=writable_file)
OUT_FOLDER = typer.Option(
    "--out", metavar="FOLDER", help="Folder to write the files to.", file_okay=False, callback=writable_folder
)
ResultFolder = Annotated[
    Path | None,
    typer.Option(
        "--out",
        metavar="FOLDER",
        help="Folder for the files that an orchestrator reads, return.json among them.",
        file_okay=False,
        callback=writable_folder,
    ),
]
Host = Annotated[str, typer.Option("--host", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="Port to listen on; 0 takes a free one.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Most entries to read.")]
Scheduler = Annotated[
    str,
    typer.Option(
        "--scheduler",
        metavar="NAME",
        help="The scheduler that starts this run; refused while another one runs the loop on this lake.",
    ),
]
Who = Annotated[str, typer.Option("--who", help="Your name, for the ledger.", envvar="USER")]
Why = Annotated[str, typer.Argument(metavar="WHY", help="The reason, for the ledger.")]


def settings(path: Path | None) -> Config:
    """Load ratchet.yaml, or the default profile without a file."""
    return load_config(path or profile_path(DEFAULT_PROFILE))
