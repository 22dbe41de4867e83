"""Compile the templates to YAML files, the same bytes for the same settings."""

from pathlib import Path
from typing import Any

import yaml

from ratchet_pipelines.argo.lint import lint
from ratchet_pipelines.argo.settings import Settings
from ratchet_pipelines.argo.workflows import workflow_templates

HEADER = "# Compiled from pipelines/ratchet_pipelines/argo; edit that, not this file.\n"


def compile_documents(settings: Settings) -> list[dict[str, Any]]:
    """Return the objects as plain data, in the order in which to apply them."""
    documents: list[dict[str, Any]] = [template.to_dict() for template in workflow_templates(settings)]
    faults = lint(documents)
    assert not faults, faults
    return documents


def file_name(document: dict[str, Any]) -> str:
    suffix = "-cron" if document["kind"] == "CronWorkflow" else ""
    return f"{document['metadata']['name']}{suffix}.yaml"


def write_documents(settings: Settings, folder: Path) -> list[Path]:
    """Write one file per object; return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for document in compile_documents(settings):
        path = folder / file_name(document)
        path.write_text(HEADER + yaml.safe_dump(document, sort_keys=False, width=120), encoding="utf-8")
        written.append(path)
    return written
