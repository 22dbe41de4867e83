"""`ratchet where-used` and `ratchet explain`: from a vote to every adapter, and from a dataset to everything."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.errors import UserError
from ratchet.store import open_lake
from ratchet_pipelines.cli.options import AsJson, Lake

out = Console(highlight=False, soft_wrap=True, markup=False)


def where_used(
    feedback_id: Annotated[str, typer.Argument(metavar="FEEDBACK_ID", help="The id of a vote.")],
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Say which rows of which datasets name a vote, or why none does, and what was made from them."""
    from ratchet.lineage import where_used

    uses = where_used(open_lake(lake), feedback_id)
    if not uses:
        raise UserError(f"where-used {feedback_id}: no dataset of {lake} has seen it; is it collected and valid?")
    if as_json:
        print(json.dumps([use.model_dump(mode="json") for use in uses], indent=1))
        return
    for use in uses:
        rows = ", ".join(f"{place.file} row {place.row}" for place in use.places)
        out.print(f"{use.dataset}: {rows or f'in no row: {use.reason}'}")
        _print_made(use.made)


def explain(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its digest, the beginning of it, or its URI.")],
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Say what a dataset holds, what was left out and why, what it was made from and what was made from it."""
    from ratchet.lineage import explain

    store = open_lake(lake)
    told = explain(store, dataset)
    if as_json:
        print(json.dumps(told, indent=1))
        return
    out.print(store.read(f"{told['dataset']}/card.md").decode())
    out.print("## Made from\n")
    _print_made(told["made_from"])
    out.print("\n## Made of it\n")
    _print_made(told["made"])


def _print_made(made: Any) -> None:
    for one in made:
        rest = ", ".join(f"{name} {value}" for name, value in one.items() if name not in ("step", "manifest"))
        out.print(f"  {one['step']}: {rest}")


def add_to(app: typer.Typer) -> None:
    app.command("where-used")(where_used)
    app.command()(explain)
