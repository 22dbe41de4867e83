"""Render the simulation as one self-contained HTML page: two charts and the table."""

import io
from html import escape
from typing import TYPE_CHECKING

from ratchet.release.simulation.simulate_gate import Simulated, decision_of, median_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#17694a", "#b9480a", "#0b66a3", "#765a00", "#a32018")
STYLE = """
body { font: 1rem/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1d1c1a }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .3rem .8rem .3rem 0 }
td { border-top: 1px solid #e3e0d8; font-variant-numeric: tabular-nums } svg { width: 100%; height: auto }
.rows { overflow-x: auto }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1rem }
"""


def page(simulated: Simulated) -> str:
    """Return the page."""
    rows = "".join(
        f"<tr><td>{escape(row.name)}</td><td>{escape(row.method)}</td><td>{decision_of(row)}</td>"
        f"<td>{row.share:.2%}</td><td>{row.low:.2%} to {row.high:.2%}</td><td>{median_of(row)}</td></tr>"
        for row in simulated.rows
    )
    facts = (
        f"{simulated.num_runs:,} canaries a row, {simulated.num_votes} canary votes at most and {simulated.weight} "
        f"percent of traffic where a row does not say otherwise; alpha {simulated.alpha}, of which a first attempt "
        f"spends {simulated.alpha_spent:.4f}; margin {simulated.margin}."
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>The gate, simulated</title><style>{STYLE}</style><h1>The gate, simulated</h1><p>{facts}</p>"
        f'<div class="charts">{_chart(simulated, "equal arms", "Rolled back although both arms are equal")}'
        f"{_chart(simulated, '10 points worse', 'Rolled back when the candidate is 10 points worse')}</div>"
        '<div class="rows"><table><tr><th>canary<th>method<th>decision<th>share<th>95% interval'
        "<th>median canary votes, or hours"
        f"</tr>{rows}</table></div></html>"
    )


def _chart(simulated: Simulated, scenario: str, title: str) -> str:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.fonttype": "none", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(6, 3.6), layout="constrained")
        axes = figure.subplots()
        _draw(axes, simulated, scenario, title)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", metadata={"Date": None})
    return svg.getvalue()[svg.getvalue().index("<svg") :]


def _draw(axes: "Axes", simulated: Simulated, scenario: str, title: str) -> None:
    curves = {method: shares for (name, method), shares in simulated.curves.items() if name == scenario}
    for (method, shares), colour in zip(curves.items(), COLOURS, strict=False):
        axes.step(simulated.looks, [100 * share for share in shares], where="post", color=colour, label=method)
    if scenario == "equal arms":
        axes.axhline(100 * simulated.alpha, color="#6a675f", linewidth=1, linestyle="--")
    axes.set_title(title, fontsize=11, loc="left")
    axes.set_xlabel("canary votes")
    axes.set_ylabel("percent of canaries")
    axes.set_ylim(0, 102)
    axes.legend(frameon=False, fontsize=8)
