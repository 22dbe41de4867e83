"""`ratchet error-rates`: how often the offline gate would be wrong, with your settings and so many held-out pairs."""

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

from ratchet_pipelines.cli.options import AsJson, ConfigFile, settings

if TYPE_CHECKING:
    from ratchet.evaluation.error_rates import Rates

BROKEN_P = 0.001  # an excess of errors as unlikely as this, if the promise held, breaks it
say = Console(stderr=True, highlight=False)


def error_rates(
    pairs: Annotated[int, typer.Option(min=1, help="Held-out pairs in each exam.")] = 60,
    draws: Annotated[int, typer.Option(min=1, help="Exams simulated of each kind.")] = 2000,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Simulate exams of candidates whose true quality is known: how often does the offline gate err?"""
    import numpy as np

    from ratchet.evaluation.error_rates import simulate, truths

    whole = settings(config)
    kinds = truths(whole.evaluate_adapter)
    sit = partial(simulate, num_pairs=pairs, draws=draws, settings=whole.evaluate_adapter)
    with ProcessPoolExecutor() as pool:
        sat = pool.map(sit, kinds, np.random.default_rng(whole.seed).spawn(len(kinds)))
        found = list(track(sat, "exams", total=len(kinds), console=say, transient=True))
    if as_json:
        print(json.dumps([asdict(rates) for rates in found], indent=1))
    else:
        Console(highlight=False).print(_table(found, pairs, draws))


def _table(found: "Sequence[Rates]", pairs: int, draws: int) -> Table:
    table = Table(title=f"{draws:,} exams of {pairs} pairs each, in percent", title_justify="left")
    for heading in ("the candidate is", "pass", "fail", "insufficient", "promised", "kept"):
        table.add_column(heading, justify="left" if heading == "the candidate is" else "right")
    for rates in found:
        shares = [f"{100 * rates.verdicts[verdict] / draws:.1f}" for verdict in ("pass", "fail", "insufficient")]
        promise = "" if rates.at_most is None else f"{rates.of} at most {100 * rates.at_most:.1f}"
        kept = "" if rates.excess_p is None else "yes" if rates.excess_p > BROKEN_P else "NO"
        table.add_row(rates.world, *shares, promise, kept)
    return table
