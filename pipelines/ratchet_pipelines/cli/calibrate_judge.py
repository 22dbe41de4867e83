"""`ratchet calibrate-judge`: how far a judge agrees with PandaLM's annotators, beside how far these agree."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress
from rich.table import Table

from ratchet.errors import UserError
from ratchet.store import open_store
from ratchet_pipelines.cli.options import AsJson, ConfigFile, Lake, settings

if TYPE_CHECKING:
    from ratchet.evaluation.judge.calibration import Calibration


def calibrate_judge(
    file: Annotated[Path, typer.Argument(help="PandaLM's test set: pairs judged by three people.")],
    config: ConfigFile = None,
    pairs: Annotated[int, typer.Option(min=1, help="The first so many.")] = 100,
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Measure the judge of `evaluate_adapter.judge` on people's verdicts. What it says is kept in the lake."""
    from ratchet.evaluation.judge.pairwise import outcomes, questions
    from ratchet.evaluation.judge.pandalm import measure, read_panel
    from ratchet.evaluation.judge.run import ask
    from ratchet.evaluation.scoring import load

    whole = settings(config)
    judge = whole.evaluate_adapter.judge
    if judge.style == "none":
        raise UserError("evaluate_adapter.judge.style is none; set it to openai, anthropic or likelihood")
    panel = read_panel(file, pairs)
    models = load(whole, {}) if judge.style == "likelihood" else None
    asked = questions(panel.pairs)
    with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=Console(stderr=True)) as bar:
        task = bar.add_task("judge", total=len(asked))
        heard, cost = ask(asked, whole.evaluate_adapter, models, open_store(lake), lambda done: bar.advance(task, done))
    found = measure(panel, outcomes(panel.pairs, heard), whole.seed)
    if as_json:
        print(json.dumps({"by": {names: asdict(one) for names, one in found.items()}, **cost}, indent=1))
    else:
        Console(highlight=False).print(_table(found))


def _table(found: "dict[str, Calibration]") -> Table:
    table = Table(title="Agreement, and Cohen's kappa with its lower bound (95%)", title_justify="left")
    for heading in ("between", "pairs", "agree", "kappa", "at least", "turned with the order"):
        table.add_column(heading, justify="left" if heading == "between" else "right")
    for names, one in found.items():
        flips = f"{one.flip_rate:.0%}" if names.startswith("judge") else ""
        table.add_row(names, str(one.n), f"{one.agreement:.1%}", f"{one.kappa:.3f}", f"{one.kappa_low:.3f}", flips)
    return table
