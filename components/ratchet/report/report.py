"""Write the HTML report of one or several loop runs ("acts") from their manifests, and of the release ledger.

The page is one file without links or scripts. It shows only the manifests' flows and facts; a step that did not run has
no section.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ratchet.manifest import Flow, Manifest
from ratchet.report import plots
from ratchet.report.summary import STEP_NAMES, summarise

if TYPE_CHECKING:
    from ratchet.release.ledger import LedgerRecord

Facts = Mapping[str, Any]


@dataclass(frozen=True)
class Act:
    """One run of the loop: a title, and its manifests in the order of the steps."""

    title: str
    manifests: Sequence[Manifest]


@dataclass(frozen=True)
class StepRows:
    """One step's flow of one unit, for the data section."""

    step: str
    unit: str
    flow: Flow

    @property
    def drops(self) -> list[tuple[str, int]]:
        """Largest first."""
        return sorted(self.flow.drops.items(), key=lambda drop: (-drop[1], drop[0]))


def write_report(acts: Sequence[Act], ledger: Sequence["LedgerRecord"], path: Path) -> None:
    """Write the acts and the ledger, oldest first, as one self-contained HTML file."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "number": number, "signed": signed, "percent": percent, "words": words}
    environment.filters |= {"utc": utc, "svg": Markup, "short": short}
    views = [view(act, f"act{place}") for place, act in enumerate(acts, 1)]
    page = environment.get_template("report.html.j2").render(acts=views, ledger=ledger)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def view(act: Act, name: str) -> dict[str, Any]:
    """Return the template's variables for one act; `name` is unique within the page."""
    by_step = {manifest.step: manifest for manifest in act.manifests}
    facts = {step: manifest.facts for step, manifest in by_step.items()}
    return {
        "title": act.title,
        "summary": summarise(by_step),
        "outcome": facts.get("release_adapter", {}).get("outcome", ""),
        "bars": [
            StepRows(STEP_NAMES.get(manifest.step, manifest.step), unit, flow)
            for manifest in act.manifests
            for unit, flow in manifest.flows.items()
        ],
        "sizes": facts.get("build_datasets", {}).get("sizes", {}),
        "digests": {
            output: artifact.digest
            for manifest in act.manifests
            for output, artifact in manifest.outputs.items()
            if output in ("dataset", "adapter", "verdict")
        },
        "losses": losses(facts.get("train_adapter", {}), name),
        "evaluation": evaluation(facts.get("evaluate_adapter")),
        "forest": forest(facts.get("evaluate_adapter", {}), name),
        "release": facts.get("release_adapter"),
        "phases": phases(facts.get("release_adapter", {})),
        "canary": canary(facts.get("release_adapter", {}), name),
    }


def losses(facts: Facts, name: str) -> list[tuple[str, str]]:
    """Return (title, chart) of each phase that took a step."""
    titles = {"sft": "Imitation loss (SFT)", "dpo": "Preference loss (DPO)"}
    history = facts.get("history", [])
    by_phase = {phase: [row for row in history if row["phase"] == phase] for phase in titles}
    return [(titles[phase], plots.loss_curve(rows, f"{name}-{phase}")) for phase, rows in by_phase.items() if rows]


def evaluation(facts: Facts | None) -> Facts | None:
    """Return the facts, with defaults for what older verdicts lack."""
    if not facts:
        return None
    checks = [{"base": None, "is_alarm": check.get("low") is None, **check} for check in facts.get("checks", [])]
    return {"slices": [], "judge": None, **facts, "checks": checks}


def forest(facts: Facts, name: str) -> str:
    checks = facts.get("checks", [])
    return plots.forest(checks, f"{name}-forest") if checks else ""


def canary(facts: Facts, name: str) -> list[tuple[str, str]]:
    """Return (title, chart) of traffic, votes and evidence over time."""
    timeline = facts.get("timeline", [])
    if not timeline:
        return []
    return [
        ("Traffic on the candidate", plots.traffic(timeline, f"{name}-traffic")),
        ("Up votes so far", plots.approval(timeline, f"{name}-approval")),
        ("Log evidence", plots.evidence(timeline, facts["bound"], f"{name}-evidence")),
    ]


def phases(facts: Facts) -> list[tuple[float, str]]:
    """Return (seconds, phase) at each change of the canary's phase."""
    changes: list[tuple[float, str]] = []
    for row in facts.get("timeline", []):
        if not changes or changes[-1][1] != row["phase"]:
            changes.append((row["t"], row["phase"]))
    return changes


def count(value: int) -> str:
    return f"{value:,}"


def number(value: float | None) -> str:
    """Format with three significant digits; empty for None."""
    return "" if value is None else f"{value:.3g}"


def signed(value: float | None) -> str:
    return "" if value is None else f"{value:+.3f}".replace("-", "−")


def percent(part: float, whole: float) -> str:
    """Format a share for people and for CSS widths; 0 of 0 is 0%."""
    return f"{100 * part / whole if whole else 0:.1f}%"


def words(name: str) -> str:
    return name.replace("_", " ")


def utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def short(digest: str) -> str:
    return digest[:12]
