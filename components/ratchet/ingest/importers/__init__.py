"""Importers: other people's feedback as events, so that training has something to start from.

An importer is one module: the shape of the format's records, and how they become events (docs/importers.md has the
rules). Ids are made of what the records say, and times too where they give none: importing on two machines lands the
same bytes, importing twice lands once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ratchet.ingest.importers import (
    arena,
    kto,
    langfuse,
    langsmith,
    mlflow,
    oasst,
    otel,
    pandalm,
    phoenix,
    preference,
    tensorzero,
)
from ratchet.ingest.importers.importer import Importer, Source, import_sources
from ratchet.ingest.importers.intake import Imported, Terms
from ratchet.store import Store

__all__ = ["IMPORTERS", "Imported", "Importer", "Source", "Terms", "import_files", "import_sources"]

IMPORTERS: Mapping[str, Importer] = {
    module.IMPORTER.name: module.IMPORTER
    for module in (
        arena, kto, langfuse, langsmith, mlflow, oasst, otel, pandalm, phoenix, preference, tensorzero,
    )
}  # fmt: skip


def import_files(
    store: Store, name: str, files: Sequence[Path], traces: Sequence[Path] = (), terms: Terms | None = None
) -> Imported:
    """Land the events that files of a format hold. Raises UserError on a file that is none or holds no records."""
    sources = [Source.file_at(path, is_trace=True) for path in traces] + [Source.file_at(path) for path in files]
    return import_sources(store, IMPORTERS[name], sources, terms or Terms())
