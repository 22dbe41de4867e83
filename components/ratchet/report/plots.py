"""Draw charts as inline SVG whose colours are CSS variables, so that they follow the page's dark mode.

Each is about as wide as a phone, so that its text stays readable there; on wide screens the page has columns.
"""

import io
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Placeholder colours, replaced by the page's CSS variables.
INK, MUTED, LINE, CHAMPION, CANDIDATE, CARD = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
FORMER_TESTS = {"non_inferiority": "no_worse"}  # names of tests in the timelines of older releases
VARIABLES = {
    INK: "ink", MUTED: "muted", LINE: "line", CHAMPION: "champion", CANDIDATE: "candidate", CARD: "card",
}  # fmt: skip
WIDTH_INCHES, HEIGHT_INCHES = 5.4, 2.7
ROW_INCHES = 0.55
RUNNING_SHARE = 0.1
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none", "font.size": 11, "text.color": INK, "axes.edgecolor": LINE, "axes.labelcolor": MUTED,
    "axes.spines.top": False, "axes.spines.right": False, "axes.facecolor": "none", "figure.facecolor": "none",
    "xtick.color": MUTED, "ytick.color": MUTED, "xtick.major.size": 0, "ytick.major.size": 0, "axes.grid": True,
    "axes.grid.axis": "y", "grid.color": LINE, "axes.axisbelow": True, "lines.linewidth": 2,
}  # fmt: skip

Row = dict[str, Any]


def loss_curve(history: Sequence[Row], name: str) -> str:
    """Draw the loss by optimiser step: each step faintly, and a running mean over a tenth of the steps."""
    import numpy as np

    steps, losses = [row["step"] for row in history], [row["loss"] for row in history]
    width = max(1, round(RUNNING_SHARE * len(losses)))
    means = [np.mean(losses[max(0, end - width) : end]) for end in range(1, len(losses) + 1)]

    def draw(axes: "Axes") -> None:
        axes.plot(steps, losses, color=CANDIDATE, linewidth=1, alpha=0.35)
        axes.plot(steps, means, color=CANDIDATE)
        axes.set_xlabel("optimiser step")
        _label_ends(axes, [(means[-1], steps[-1], f"{means[-1]:.3g}", CANDIDATE)])

    return _chart(draw, name, f"Loss by step, from {losses[0]:.3g} to {losses[-1]:.3g}")


def traffic(timeline: Sequence[Row], name: str) -> str:
    """The share of traffic on the candidate, in percent, by seconds since the release was requested."""
    times, weights = [row["t"] for row in timeline], [row["weight"] or 0 for row in timeline]

    def draw(axes: "Axes") -> None:
        axes.step(times, weights, where="post", color=CANDIDATE)
        axes.fill_between(times, weights, step="post", color=CANDIDATE, alpha=0.15, linewidth=0)
        axes.set_ylim(0, max(50, *weights) * 1.1)
        axes.set_xlabel("seconds")
        axes.yaxis.set_major_formatter("{x:.0f} %")

    return _chart(draw, name, f"Traffic on the candidate, at most {max(weights)} percent")


def approval(timeline: Sequence[Row], name: str) -> str:
    """Draw champion's and candidate's share of up votes so far, by seconds."""

    def draw(axes: "Axes") -> None:
        ends = []
        for arm, colour, dashes in (("primary", CHAMPION, (4, 2)), ("canary", CANDIDATE, (1, 0))):
            seen = [(row["t"], row["votes"][arm]) for row in timeline if row["votes"].get(arm, {}).get("n")]
            if not seen:
                continue
            shares = [100 * votes["up"] / votes["n"] for _, votes in seen]
            axes.plot([t for t, _ in seen], shares, color=colour, dashes=dashes)
            ends.append((shares[-1], seen[-1][0], f"{seen[-1][1]['up']} of {seen[-1][1]['n']}", colour))
        _label_ends(axes, ends)
        axes.set_ylim(0, 105)
        axes.set_xlabel("seconds")
        axes.yaxis.set_major_formatter("{x:.0f} %")

    return _chart(draw, name, "Share of up votes so far, champion and candidate")


def evidence(timeline: Sequence[Row], bound: float, name: str) -> str:
    """Draw the log evidence of both tests by seconds, and the bound at which they decide."""

    def draw(axes: "Axes") -> None:
        times, ends = [row["t"] for row in timeline], []
        for test, words, colour, dashes in (
            ("harm", "harm", INK, (4, 2)),
            ("non_inferiority", "no worse", CANDIDATE, (1, 0)),
        ):
            log_e = [row["log_e"] for row in timeline]
            values = [each.get(test, each.get(FORMER_TESTS.get(test, ""), 0.0)) for each in log_e]
            axes.plot(times, values, color=colour, dashes=dashes)
            ends.append((values[-1], times[-1], words, colour))
        _label_ends(axes, ends)
        axes.axhline(bound, color=MUTED, linewidth=1, dashes=(2, 2))
        axes.annotate(
            "decides",
            (0, bound),
            xycoords=("axes fraction", "data"),
            xytext=(2, 4),
            textcoords="offset points",
            color=MUTED,
            fontsize=10,
        )
        low, high = axes.get_ylim()
        axes.set_ylim(low, max(high, bound * 1.25))
        axes.set_xlabel("seconds")

    return _chart(draw, name, f"Log evidence for harm and for no worse, against the bound {bound:.2f}")


def forest(checks: Sequence[Row], name: str) -> str:
    """Draw each check's difference with its interval, zeros aligned; each row has its own scale."""

    def draw(axes: "Axes") -> None:
        for place, check in enumerate(checks):
            _forest_row(axes, len(checks) - place, check)
        axes.axvline(0, color=LINE, linewidth=1.5, zorder=0)
        axes.set_xlim(-1.1, 1.1)
        axes.set_ylim(0.5, len(checks) + 0.75)
        axes.set_axis_off()

    return _chart(draw, name, "Difference of candidate and incumbent, by check", ROW_INCHES * len(checks) + 0.2)


def _forest_row(axes: "Axes", height: int, check: Row) -> None:
    bounds = [check[key] for key in ("low", "high") if check.get(key) is not None]
    scale = max(abs(value) for value in (*bounds, check["difference"], check["threshold"], 1e-9))
    if bounds:
        axes.plot([bound / scale for bound in bounds], [height, height], color=CANDIDATE, solid_capstyle="butt")
    threshold = check["threshold"] / scale
    axes.plot([threshold, threshold], [height - 0.14, height + 0.14], color=INK, linewidth=1.5)
    marker = {"pass": "o", "fail": "X"}.get(check["verdict"], "o")
    face = CARD if check["verdict"] == "insufficient" else CANDIDATE
    axes.plot(
        check["difference"] / scale,
        height,
        marker,
        color=CANDIDATE,
        markerfacecolor=face,
        markersize=8,
        markeredgewidth=2 if face == CARD else 0,
    )
    axes.text(-1.1, height + 0.3, check["name"].replace("_", " "), va="center")
    axes.text(1.1, height + 0.3, f"{check['difference']:+.3f}".replace("-", "−"), va="center", ha="right", color=MUTED)


def _label_ends(axes: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
    """Label the ends of lines, (y, x, words, colour) each, without overlap of lines that end close together."""
    for place, (y, x, words, colour) in enumerate(sorted(ends, reverse=True)):
        align = "center" if len(ends) == 1 else "bottom" if place == 0 else "top"
        axes.annotate(words, (x, y), xytext=(5, 0), textcoords="offset points", color=colour, va=align, clip_on=False)


def _chart(draw: Any, name: str, words: str, height_inches: float = HEIGHT_INCHES) -> str:
    """Return the chart as SVG; `name` makes ids unique within the page, `words` is the text for screen readers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({**STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH_INCHES, height_inches), layout="constrained")
        draw(figure.subplots())
        return _inline(figure, words)


def _inline(figure: "Figure", words: str) -> str:
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Creator": None, "Date": None, "Format": None, "Type": None})
    svg = drawn.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg, flags=re.DOTALL)  # a style would leak out
    svg = re.sub(r'\s(xmlns(:\w+)?|width|height|version)="[^"]*"', "", svg, count=5)
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)  # figure_1, axes_1, …: the same in every chart
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "system-ui, sans-serif", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg.replace("<svg", f'<svg role="img" aria-label="{words}"', 1)
