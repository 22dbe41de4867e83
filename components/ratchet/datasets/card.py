"""Write the dataset's card: its rows, weights, lengths and languages, and the triplets left out, by reason.

`card.json` holds the numbers, `card.md` is for reading, `card.svg` charts the most important of them. All three are
part of the dataset's digest, so they hold no time and no path, and the chart has whole coordinates.
"""

import itertools
import json
from collections import Counter
from html import escape
from pathlib import Path
from typing import Any

import polars as pl

from ratchet.datasets.interning import Interned
from ratchet.datasets.prompts import prompt_texts
from ratchet.datasets.weights import FACTORS
from ratchet.language import text_language

TEXT_KEYS = {"prompt": "prompt", "answer": "completion", "chosen": "chosen", "rejected": "rejected"}
WIDTH_PX, BAR_PX, PANEL_GAP_PX, LABEL_PX = 720, 16, 34, 190
LENGTH_EDGES = (0, 50, 100, 200, 500, 1000, 2000, 5000)
WEIGHT_EDGES = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.1)
LANGUAGE_PROMPTS = 1000  # sampled for the languages: 0.2 s of CPU

Bars = dict[str, int]


def describe(name: str, table: pl.DataFrame, triplets: Interned, written: pl.DataFrame) -> dict[str, Any]:
    """Summarize a file: rows, total weight, effective sample size, mean factors, and histograms.

    The effective sample size is Kish's: the squared sum of the weights over the sum of their squares. Everything is
    counted on the `written` rows, synthetic ones included, except lengths (characters), which are of the real rows.
    """
    total, squares = written.select(pl.col("weight").sum(), squares=(pl.col("weight") ** 2).sum()).row(0)
    chars = {
        text: (triplets.prompts if key == "prompt" else triplets.answers).gather(table[key]).str.len_chars()
        for key, text in TEXT_KEYS.items()
        if key in table.columns
    }
    means = written.select(pl.col(factor).mean().round_sig_figs(4) for factor in FACTORS).row(0, named=True)
    return {
        "rows": len(written),
        "synthetic": int(written["synthetic"].sum()),
        "groups": written["group"].n_unique(),
        "weight": round(total, 3),
        "effective_rows": round(total**2 / squares, 1) if squares else 0.0,
        "mean_factors": means,
        "median_chars": {text: lengths.median() for text, lengths in chars.items()},
        "chars": {text: _histogram(lengths, LENGTH_EDGES) for text, lengths in chars.items()},
        "weights": _histogram(written["weight"], WEIGHT_EDGES),
    }


def write_card(folder: Path, card: dict[str, Any], files: dict[str, pl.DataFrame], triplets: Interned) -> None:
    """Write the three files, with the languages of a sample of prompts added to the card."""
    prompts = pl.concat([table["prompt"] for table in files.values()]).unique().sort()
    every = max(1, len(prompts) // LANGUAGE_PROMPTS)
    sample = prompt_texts(triplets.prompts.gather(prompts.gather_every(every).head(LANGUAGE_PROMPTS)))
    card = {**card, "languages": dict(Counter(map(text_language, sample)))}
    (folder / "card.json").write_text(json.dumps(card, indent=1, sort_keys=True) + "\n")
    (folder / "card.svg").write_text(draw(_panels(card)))
    (folder / "card.md").write_text(render_markdown(card))


def render_markdown(card: dict[str, Any]) -> str:
    """Render the card in Markdown, from `card.md.j2`."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("card.md.j2").render(
        {
            **card,
            "drops": _largest_first(card["triplets"]["drops"]),
            "languages": _largest_first(card["languages"]),
            "trained": _trained(card),
            "factors": FACTORS,
        }
    )


def draw(panels: dict[str, Bars]) -> str:
    """Draw each panel's horizontal bars, one panel below the other, as SVG."""
    parts, y = [], 0
    for title, bars in panels.items():
        y += PANEL_GAP_PX
        parts.append(f'<text x="0" y="{y - 8}" font-weight="bold">{escape(title)}</text>')
        longest = max([*bars.values(), 1])
        for label, count in bars.items():
            length = count * (WIDTH_PX - LABEL_PX - 80) // longest
            parts.append(f'<text x="{LABEL_PX - 8}" y="{y + 12}" text-anchor="end">{escape(label)}</text>')
            parts.append(f'<rect x="{LABEL_PX}" y="{y + 2}" width="{length}" height="{BAR_PX - 4}" fill="#3b6ea5"/>')
            parts.append(f'<text x="{LABEL_PX + length + 6}" y="{y + 12}">{count:,}</text>')
            y += BAR_PX
    size = f'viewBox="0 0 {WIDTH_PX} {y + 10}" width="{WIDTH_PX}" height="{y + 10}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *parts, "</svg>", ""])


def _panels(card: dict[str, Any]) -> dict[str, Bars]:
    trained = _trained(card)
    return {
        "Rows": {name: file["rows"] for name, file in card["files"].items()},
        "Triplets left out, by reason": _largest_first(card["triplets"]["drops"]),
        **{f"Weights, {name}": file["weights"] for name, file in trained.items()},
        **{
            f"Characters, {name}, {text}": bars
            for name, file in trained.items()
            for text, bars in file["chars"].items()
        },
    }


def _trained(card: dict[str, Any]) -> dict[str, Any]:
    return {name: file for name, file in card["files"].items() if name.endswith("-train")}


def _largest_first(counts: Bars) -> Bars:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def _histogram(values: pl.Series, edges: tuple[float, ...]) -> Bars:
    """Count the values in each bin from an edge up to the next; the last bin has no upper edge."""
    place = (
        values.cast(pl.Float64)
        .to_frame("value")
        .select(pl.sum_horizontal([pl.col("value") >= edge for edge in edges]).alias("place"))
    )
    counts = dict(place.group_by("place").len().iter_rows())
    labels = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)] + [f"{edges[-1]:g} and more"]
    return {label: counts.get(place, 0) for place, label in enumerate(labels, start=1)}
