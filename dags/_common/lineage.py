"""What a task read and made, for OpenLineage: manifests and outputs as datasets, with their digests as versions.

Airflow's OpenLineage provider calls these methods and sends the events. Without a transport it never does, and nothing
of it is imported.
"""

import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.providers.openlineage.extractors import OperatorLineage

DEFAULT_LAKE = "lake"  # as `ratchet` itself has it, in the folder in which it is started


class ReportsLineage:
    """An operator of one `ratchet` command. It sets these fields, `result` when the command has ended well."""

    arguments: list[str]
    input_digests: dict[str, str]
    lake: str | None
    result: dict[str, Any] | None

    def get_openlineage_facets_on_start(self) -> "OperatorLineage":
        """The manifests that the command reads."""
        return lineage(self.lake, self.arguments, self.input_digests, None)

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> "OperatorLineage":
        """The manifests that it read, the one that it wrote, and what that names."""
        return lineage(self.lake, self.arguments, self.input_digests, self.result)

    def get_openlineage_facets_on_failure(self, task_instance: Any) -> "OperatorLineage":
        """The manifests that it read. A failed command has published nothing."""
        return lineage(self.lake, self.arguments, self.input_digests, None)


def lineage(
    lake: str | None, arguments: list[str], input_digests: Mapping[str, str], result: Mapping[str, Any] | None
) -> "OperatorLineage":
    """The datasets of one command. Its URIs are relative to the lake, so datasets are named with the lake before them.

    A manifest is a dataset too: the one that a step writes is what the next one reads, which joins the two.
    """
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.event_v2 import InputDataset, OutputDataset
    from openlineage.client.facet_v2 import output_statistics_output_dataset

    namespace, prefix = _place(lake or os.environ.get("RATCHET_LAKE", DEFAULT_LAKE))
    inputs = [
        InputDataset(namespace=namespace, name=prefix + uri, facets=_version(input_digests.get(name)))
        for name, uri in _manifests_read(arguments)
    ]
    outputs = []
    for made in _made(result or {}):
        rows = made.get("rows")
        counted = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
        outputs.append(
            OutputDataset(
                namespace=namespace,
                name=prefix + made["uri"],
                facets=_version(made["digest"]),
                outputFacets={} if rows is None else {"outputStatistics": counted},
            )
        )
    return OperatorLineage(inputs=inputs, outputs=outputs)


def _manifests_read(arguments: list[str]) -> list[tuple[str, str]]:
    """Each input by the step that made it, and its manifest's URI."""
    given = (value.partition("=") for option, value in pairwise(arguments) if option == "--in")
    return [(name, uri) for name, _, uri in given]


def _made(result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A step's manifest and its outputs; nothing for a command that is not a step, as `drift`."""
    return [result, *result["outputs"].values()] if "outputs" in result else []


def _version(digest: str | None) -> dict[str, Any]:
    from openlineage.client.facet_v2 import dataset_version_dataset

    return {"version": dataset_version_dataset.DatasetVersionDatasetFacet(datasetVersion=digest)} if digest else {}


def _place(lake: str) -> tuple[str, str]:
    """The namespace of a lake, and what comes before each name in it, as OpenLineage's naming rules have them.

    https://openlineage.io/docs/spec/naming: a bucket and its keys; the local disk and absolute paths.
    """
    if not lake.startswith("s3://"):
        return "file", f"{Path(lake).absolute()}/"
    bucket, _, folder = lake.removeprefix("s3://").partition("/")
    folder = folder.strip("/")
    return f"s3://{bucket}", f"{folder}/" if folder else ""
