"""`ratchet where-used` and `ratchet explain`: follow a vote to every adapter, and a dataset both ways."""

import json
from typing import Annotated, Any

import typer
from rich.console import Console

from ratchet.errors import UserError
from ratchet.store import open_lake
from ratchet_pipelines.cli.options import AsJson, Lake

out = Console(highlight=False, soft_wrap=True, markup=False)


def where_used(
    name: Annotated[
        str, typer.Argument(metavar="ID", help="Id of a vote, or of an answer: its header x-interaction-id.")
    ],
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Follow a vote, or all votes on an answer, to every dataset and adapter made from it.

    Says which rows name the vote, or why none does.
    """
    from ratchet.lineage import feedback_on, where_used

    store = open_lake(lake)
    uses = {name: where_used(store, name)}
    looked_up = "a feedback id"
    if not uses[name] and (votes := feedback_on(store, name)):
        uses = {vote: where_used(store, vote) for vote in votes}
        looked_up = f"an interaction id with the feedback {', '.join(votes)}"
    if not any(uses.values()):
        known = "no feedback of that id is in a dataset" if name in uses else f"it is {looked_up}, which no dataset has"
        raise UserError(
            f"where-used {name}: {known}; searched the datasets and the feedback table of {lake} for a feedback id and "
            "an interaction id. Has it been collected, and is it valid? `ratchet lake status` counts what waits"
        )
    if as_json:
        records = [{"feedback_id": vote, **use.model_dump(mode="json")} for vote, used in uses.items() for use in used]
        print(json.dumps(records, indent=1))
        return
    out.print(f"{name} is {looked_up}.")
    for vote, used in uses.items():
        if vote != name:
            out.print(f"\n{vote}:" + ("" if used else " in no dataset"))
        for use in used:
            rows = ", ".join(f"{place.file} row {place.row}" for place in use.places)
            out.print(f"{use.dataset}: {rows or f'in no row: {use.reason}'}")
            _print_made(use.made)


def explain(
    dataset: Annotated[str, typer.Argument(metavar="DATASET", help="Its digest, the first digits of it, or its URI.")],
    lake: Lake = "lake",
    as_json: AsJson = False,
) -> None:
    """Explain a dataset: what it holds, what was left out and why, its sources, and what was made from it."""
    from ratchet.lineage import explain

    store = open_lake(lake)
    summary = explain(store, dataset)
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    out.print(store.read(f"{summary['dataset']}/card.md").decode())
    out.print("## Made from\n")
    _print_made(summary["made_from"])
    out.print("\n## Made of it\n")
    _print_made(summary["made"])


def _print_made(made: Any) -> None:
    for result in made:
        rest = ", ".join(f"{name} {value}" for name, value in result.items() if name not in ("step", "manifest"))
        out.print(f"  {result['step']}: {rest}")
