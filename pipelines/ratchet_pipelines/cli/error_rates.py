"""`ratchet error-rates`: how often the offline gate errs, with your settings and a given number of held-out pairs."""

import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from ratchet_pipelines.cli.options import AsJson, ConfigFile, Seed, settings
from ratchet_pipelines.console import say

if TYPE_CHECKING:
    from ratchet.evaluation.error_rates import Rates

BROKEN_P = 0.001  # p-value of the excess of errors under which the promised rate counts as broken


def error_rates(
    pairs: Annotated[int, typer.Option(min=1, help="Held-out pairs in each evaluation.")] = 60,
    runs: Annotated[int, typer.Option(min=1, help="Simulated evaluations for each row of the table.")] = 2000,
    config: ConfigFile = None,
    seed: Seed = None,
    as_json: AsJson = False,
) -> None:
    """Simulate evaluations of candidates of known quality: how often the offline gate errs."""
    import numpy as np

    from ratchet.evaluation.error_rates import simulate, truths

    whole = settings(config)
    kinds = truths(whole.evaluate_adapter)
    evaluate = partial(simulate, num_pairs=pairs, draws=runs, settings=whole.evaluate_adapter)
    generators = np.random.default_rng(whole.seed if seed is None else seed).spawn(len(kinds))
    with ProcessPoolExecutor() as pool:
        simulated = pool.map(evaluate, kinds, generators)
        rows = list(track(simulated, "simulating", total=len(kinds), console=say, transient=True))
    if as_json:
        print(json.dumps([asdict(rates) for rates in rows], indent=1))
    else:
        Console(highlight=False).print(_table(rows, pairs, runs))


def _table(rows: "Sequence[Rates]", pairs: int, runs: int) -> Table:
    table = Table(title=f"{runs:,} evaluations of {pairs} pairs each, in percent", title_justify="left")
    for heading in ("the candidate is", "pass", "fail", "insufficient", "promised", "kept"):
        table.add_column(heading, justify="left" if heading == "the candidate is" else "right")
    for rates in rows:
        shares = [f"{100 * rates.verdicts[verdict] / runs:.1f}" for verdict in ("pass", "fail", "insufficient")]
        promise = "" if rates.at_most is None else f"{rates.of} at most {100 * rates.at_most:.1f}"
        kept = "" if rates.excess_p is None else "yes" if rates.excess_p > BROKEN_P else "NO"
        table.add_row(rates.world, *shares, promise, kept)
    return table
