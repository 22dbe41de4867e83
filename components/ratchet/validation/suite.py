"""The contract on triplets, as a Great Expectations suite (`suite.json`), and its verdict row by row."""

import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from ratchet.digest import digest_bytes

if TYPE_CHECKING:
    import polars as pl

SUITE = files(__package__).joinpath("suite.json")
ROW = "row"
REASONS = "reasons"
ROLES = ("system", "user", "assistant", "tool")


@cache
def drops() -> tuple[str, ...]:
    """Every reason to drop a triplet, in the order in which they are charged: one for each expectation."""
    return tuple(expectation["meta"]["reason"] for expectation in _suite()["expectations"])


def suite_digest() -> str:
    return digest_bytes(SUITE.read_bytes())


def judge(triplets: "pl.DataFrame", limits: Mapping[str, int]) -> "pl.DataFrame":
    """The triplets with a column `reasons`: the expectations that each row fails, in suite order, none if it is good.

    `limits` fills the parameters that the suite leaves to the configuration.
    """
    import polars as pl

    reasons: list[list[str]] = [[] for _ in range(triplets.height)]
    failed = _failed_rows(_view(triplets), limits)
    for reason in drops():
        for row in failed.get(reason, ()):
            reasons[row].append(reason)
    return triplets.with_columns(pl.Series(REASONS, reasons, dtype=pl.List(pl.String)))


def _view(triplets: "pl.DataFrame") -> "pl.DataFrame":
    """What the expectations see: the columns, and numbers about the prompt, which is JSON."""
    import polars as pl

    message = pl.Struct({"role": pl.String, "content": pl.String})
    messages = pl.col("messages").str.json_decode(pl.List(message))
    role, content = (pl.element().struct.field(name) for name in ("role", "content"))
    return triplets.with_row_index(ROW).with_columns(
        prompt_chars=messages.list.eval(content.str.len_chars()).list.sum(),
        unknown_roles=messages.list.eval(~role.is_in(ROLES)).list.sum(),
    )


def _failed_rows(view: "pl.DataFrame", limits: Mapping[str, int]) -> dict[str, list[int]]:
    """Row numbers by the reason of the expectation that they fail."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read when the library is imported; it reports home otherwise
    import great_expectations as gx

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset("triplets")
    whole = asset.add_batch_definition_whole_dataframe("all")
    verdict = whole.get_batch({"dataframe": view.to_pandas()}).validate(
        gx.ExpectationSuite(**_suite()),
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": [ROW]},
        expectation_parameters=dict(limits),
    )
    return {
        result.expectation_config.meta["reason"]: [int(found[ROW]) for found in result.result["unexpected_index_list"]]
        for result in verdict.results
        if not result.success
    }


def _suite() -> Any:
    return json.loads(SUITE.read_text(encoding="utf-8"))
