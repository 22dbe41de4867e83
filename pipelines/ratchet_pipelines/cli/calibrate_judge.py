"""`ratchet calibrate-judge`: compare a judge's agreement with PandaLM's annotators with their own agreement."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from ratchet.errors import UserError
from ratchet.progress import show_progress
from ratchet.store import open_store
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, Limit, settings

if TYPE_CHECKING:
    from ratchet.evaluation.judge.calibration import Calibration


def calibrate_judge(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="PandaLM's test set: pairs judged by three people.", exists=True, dir_okay=False
        ),
    ],
    config: ConfigFile = None,
    limit: Limit = 100,
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Measure how far the judge of `evaluate_adapter.judge` agrees with people.

    The judge's answers are kept in the lake, and not asked for twice.
    """
    from ratchet.evaluation.judge.pairwise import outcomes, questions
    from ratchet.evaluation.judge.pandalm import measure, read_panel
    from ratchet.evaluation.judge.run import ask
    from ratchet.evaluation.scoring import load

    whole = settings(config)
    judge = whole.evaluate_adapter.judge
    if judge.style == "none":
        raise UserError("evaluate_adapter.judge.style is none; set it to openai, anthropic or likelihood")
    panel = read_panel(file, limit)
    models = load(whole, {}) if judge.style == "likelihood" else None
    asked = questions(panel.pairs)
    with show_progress("judge", len(asked)) as progress:
        answers, cost = ask(asked, whole.evaluate_adapter, models, open_store(lake), progress.advance)
    agreement = measure(panel, outcomes(panel.pairs, answers), whole.seed)
    if as_json:
        print(json.dumps({"by": {names: asdict(figures) for names, figures in agreement.items()}, **cost}, indent=1))
    else:
        Console(highlight=False).print(_table(agreement))


def _table(agreement: "dict[str, Calibration]") -> Table:
    table = Table(title="Agreement, and Cohen's kappa with its lower bound (95%)", title_justify="left")
    for heading in ("between", "pairs", "agree", "kappa", "at least", "turned with the order"):
        table.add_column(heading, justify="left" if heading == "between" else "right")
    for names, row in agreement.items():
        flips = f"{row.flip_rate:.0%}" if names.startswith("judge") else ""
        table.add_row(names, str(row.n), f"{row.agreement:.1%}", f"{row.kappa:.3f}", f"{row.kappa_low:.3f}", flips)
    return table
