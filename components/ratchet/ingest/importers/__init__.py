"""Import feedback from other tools' exports as events, so that training has data to start from.

An importer is one module: the schema of the format's records, and their mapping to events (rules: docs/importers.md).
Ids are hashes of the records' content, and missing times are derived from their order: two machines land the same
bytes, and importing twice lands once.
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
    """Land the events of a format's files. Raises UserError for a file that cannot be read or has no records."""
    sources = [Source.file_at(path, is_trace=True) for path in traces] + [Source.file_at(path) for path in files]
    return import_sources(store, IMPORTERS[name], sources, terms or Terms())
