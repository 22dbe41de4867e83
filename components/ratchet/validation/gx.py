"""Great Expectations itself: it checks the compiled masks on a sample, judges the evidence, and writes the Data Docs.

Importing it takes seconds, so it is imported where it is used.
"""

import importlib
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from ratchet.validation.compiler import MASK
from ratchet.validation.daily_failures import DAY

ROW = "row"
SITE = "data_docs"
NO_REPORTS = {"GX_ANALYTICS_ENABLED": "false"}  # read when the library is imported; it reports home otherwise


class Disagreement(Exception):
    """Great Expectations and the compiled mask judge the same rows differently: one of the two is wrong."""


def import_ahead() -> None:
    """Begin to import the library on another core; whoever needs it waits for what is left of that."""
    os.environ.update(NO_REPORTS)
    threading.Thread(target=importlib.import_module, args=["great_expectations"]).start()


def check_parity(
    sample: pl.DataFrame, reasons: Sequence[str], suite: Mapping[str, Any], limits: Mapping[str, Any], key: str
) -> None:
    """Let Great Expectations judge rows that have a mask already. Raises Disagreement, with both counts."""
    found = failed_rows(sample.drop(MASK), suite, limits)
    faults = []
    for bit, reason in enumerate(reasons):
        ours = set(sample.select(((pl.col(MASK) & (1 << bit)) != 0).arg_true()).to_series())
        theirs = found[reason]
        if ours != theirs:
            ids = sample[sorted(ours ^ theirs)[:3], key].to_list()
            faults.append(f"{reason}: {len(ours)} rows by the mask, {len(theirs)} by Great Expectations ({ids} …)")
    if faults:
        raise Disagreement(f"of {sample.height} sampled rows break {'; '.join(faults)}")


def failed_rows(rows: pl.DataFrame, suite: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, set[int]]:
    """Numbers of the rows that fail each expectation, by its reason."""
    context = _context()
    import great_expectations as gx

    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("all").get_batch(
        {"dataframe": rows.with_row_index(ROW).to_pandas()}
    )
    verdict = batch.validate(
        gx.ExpectationSuite(**suite),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [ROW]},
        expectation_parameters=dict(limits),
    )
    return {result.expectation_config.meta["reason"]: _unexpected(result) for result in verdict.results}


def _unexpected(result: Any) -> set[int]:
    if result.success:
        return set()
    if "unexpected_index_list" not in result.result:
        raise Disagreement(f"Great Expectations cannot judge {result.expectation_config}: {result.exception_info}")
    return {int(found[ROW]) for found in result.result["unexpected_index_list"]}


def judge_evidence(evidence: pl.DataFrame, max_share: float, folder: Path) -> list[str]:
    """Run a Checkpoint on the evidence and write its Data Docs into `folder`; the reasons too frequent on some day."""
    context = _context()
    import great_expectations as gx

    context.add_data_docs_site(SITE, _site(folder))
    share = gx.expectations.ExpectColumnValuesToBeBetween(column="share", max_value=max_share)
    suite = context.suites.add(gx.ExpectationSuite(name="triplets", expectations=[share]))
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("evidence")
    definition = gx.ValidationDefinition(
        name="triplets", data=asset.add_batch_definition_whole_dataframe("days and reasons"), suite=suite
    )
    checkpoint = gx.Checkpoint(
        name="triplets",
        validation_definitions=[context.validation_definitions.add(definition)],
        actions=[gx.checkpoint.UpdateDataDocsAction(name="publish", site_names=[SITE])],
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [DAY, "reason"]},
    )
    verdict = checkpoint.run(batch_parameters={"dataframe": evidence.to_pandas()})
    [run] = verdict.run_results.values()
    [judged] = run.results
    return sorted({found["reason"] for found in judged.result.get("unexpected_index_list") or ()})


def _site(folder: Path) -> Any:
    return {
        "class_name": "SiteBuilder",
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder)},
    }


def _context() -> Any:
    os.environ.update(NO_REPORTS)
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    return context
