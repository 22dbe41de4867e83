"""Run Great Expectations itself: on a sample, to check the compiled masks; on daily failures, to write the Data Docs.

Its import takes seconds, so it is imported where it is used.
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
NO_REPORTS = {"GX_ANALYTICS_ENABLED": "false"}  # read on import; otherwise the library sends usage statistics


class Disagreement(Exception):
    """Great Expectations and the compiled mask disagree on the same rows: one of the two is wrong."""


def import_ahead() -> None:
    """Start to import the library in a thread; a later import waits for the rest."""
    os.environ.update(NO_REPORTS)
    threading.Thread(target=importlib.import_module, args=["great_expectations"]).start()


def check_parity(
    sample: pl.DataFrame, reasons: Sequence[str], suite: Mapping[str, Any], limits: Mapping[str, Any], key: str
) -> None:
    """Check rows that have a mask with Great Expectations. Raises Disagreement, with both counts."""
    failed = failed_rows(sample.drop(MASK), suite, limits)
    faults = []
    for bit, reason in enumerate(reasons):
        ours = set(sample.select(((pl.col(MASK) & (1 << bit)) != 0).arg_true()).to_series())
        theirs = failed[reason]
        if ours != theirs:
            ids = sample[sorted(ours ^ theirs)[:3], key].to_list()
            faults.append(f"{reason}: {len(ours)} rows by the mask, {len(theirs)} by Great Expectations ({ids} …)")
    if faults:
        raise Disagreement(f"of {sample.height} sampled rows break {'; '.join(faults)}")


def failed_rows(rows: pl.DataFrame, suite: Mapping[str, Any], limits: Mapping[str, Any]) -> dict[str, set[int]]:
    """Return the row numbers that fail each expectation, by its reason."""
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
    return {int(row[ROW]) for row in result.result["unexpected_index_list"]}


def check_daily_failures(daily: pl.DataFrame, max_share: float, folder: Path) -> list[str]:
    """Run a Checkpoint on daily failures, write its Data Docs to `folder`, return reasons over `max_share` on a day."""
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
    verdict = checkpoint.run(batch_parameters={"dataframe": daily.to_pandas()})
    [run] = verdict.run_results.values()
    [result] = run.results
    return sorted({row["reason"] for row in result.result.get("unexpected_index_list") or ()})


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
