"""The options that commands share."""

from pathlib import Path
from typing import Annotated

import typer

from ratchet.config import Config, load_config
from ratchet_pipelines.profiles import profile_path

Lake = Annotated[str, typer.Option(help="The lake: a folder, or s3://bucket/prefix.", envvar="RATCHET_LAKE")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", help="ratchet.yaml; the `local` profile without it.", envvar="RATCHET_CONFIG"),
]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout.")]
Host = Annotated[str, typer.Option(help="Address to bind.")]
Port = Annotated[int, typer.Option(help="Port to bind; 0 takes a free one.")]


def settings(path: Path | None) -> Config:
    return load_config(path or profile_path("local"))
