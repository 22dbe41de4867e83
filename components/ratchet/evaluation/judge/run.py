"""The judge's part in the offline gate: calibrated on users' own votes, then heard on the new answers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.comparisons import MIN_GROUPS, Comparison
from ratchet.evaluation.eval_set import Pair
from ratchet.evaluation.judge.calibration import Calibration, calibrate, labelled
from ratchet.evaluation.judge.endpoint import ask_endpoint
from ratchet.evaluation.judge.likelihood import ask_base
from ratchet.evaluation.judge.pairwise import Contest, Outcome, outcomes, questions, silences
from ratchet.evaluation.judge.prompts import Heard, Question
from ratchet.evaluation.judge.win_rate import win_rate
from ratchet.evaluation.scoring import Advance, Models
from ratchet.manifest import Flow
from ratchet.store import Store


@dataclass(frozen=True)
class Judgement:
    """What the gate takes from a judge: a comparison, numbers for people, and what became of the contests."""

    comparison: Comparison
    facts: dict[str, Any]
    flows: dict[str, Flow]


def contests(asked: Sequence[Pair], new: Sequence[str], old: Sequence[str]) -> list[Contest]:
    """The candidate's answers (ours) against the incumbent's, to the prompts of these pairs."""
    return [Contest(pair.messages, now, was, pair.group) for pair, now, was in zip(asked, new, old, strict=False)]


def votes(pairs: Sequence[Pair]) -> list[Contest]:
    """What users chose (ours) against what they rejected."""
    return [Contest(pair.messages, pair.chosen, pair.rejected, pair.group) for pair in pairs]


def hear(
    contests: Sequence[Contest],
    votes: Sequence[Contest],
    *,
    settings: EvaluateAdapter,
    models: Models,
    store: Store,
    rng: np.random.Generator,
    advance: Advance,
) -> Judgement:
    """Judge `contests` (the candidate's answers as ours), believing the judge as far as it agrees with `votes`.

    `votes` are contests of chosen answers, as ours, against rejected ones.
    """
    judge = settings.judge
    known, labels = labelled(votes[: judge.calibration_pairs])
    asked = [*known, *contests]
    heard, cost = ask(questions(asked), settings, models, store, advance)
    found = outcomes(asked, heard)
    of_votes, of_contests = found[: len(known)], found[len(known) :]
    calibration = calibrate(
        labels, of_votes, [one.group for one in known], confidence=settings.confidence, resamples=settings.resamples,
        rng=rng,
    )  # fmt: skip
    facts = {"style": judge.style, "model": judge.model, "calibration": asdict(calibration), **cost}
    flows = {"calibration": _flow(of_votes), "contests": _flow(of_contests)}
    return Judgement(_compare(contests, of_contests, calibration, settings, rng), facts, flows)


def ask(
    asked: Sequence[Question], settings: EvaluateAdapter, models: Models | None, store: Store, advance: Advance
) -> tuple[list[Heard], dict[str, Any]]:
    """What the configured judge says, and what it cost. `models` is needed for style `likelihood` alone."""
    if models is not None and settings.judge.style == "likelihood":
        return ask_base(asked, models, settings.max_tokens, advance), {"is_weak": True}
    hearing = ask_endpoint(asked, settings.judge, store, advance)
    spent = hearing.budget
    cost = {"requests": spent.num_requests, "tokens": spent.tokens, "usd": spent.usd, "found": hearing.num_known}
    return hearing.heard, {"is_weak": False, "cost": cost}


def _compare(
    contests: Sequence[Contest],
    found: Sequence[Outcome],
    calibration: Calibration,
    settings: EvaluateAdapter,
    rng: np.random.Generator,
) -> Comparison:
    judge = settings.judge
    rows = [(one, end.marks) for one, end in zip(contests, found, strict=True) if end.marks is not None]
    marks = np.array([mark for _, mark in rows])
    blank = Comparison(
        name="judged_win_rate", candidate=0.5, incumbent=0.5, difference=0.0, threshold=-judge.tolerance, n=len(rows),
        p=1.0, required=judge.required and judge.style != "likelihood", why="",
    )  # fmt: skip
    groups = [one.group for one, _ in rows]
    if len(rows) < settings.min_pairs or len(set(groups)) < MIN_GROUPS:
        few = f"{len(rows)} judged answers in {len(set(groups))} groups; needs {settings.min_pairs} in {MIN_GROUPS}"
        return replace(blank, is_too_few=True, why=few + _unheard(found))
    extra = np.array([len(one.ours) - len(one.theirs) for one, _ in rows], float)
    rate, drawn = win_rate(marks, extra, groups, resamples=settings.resamples, rng=rng)
    low, high = drawn.interval(settings.confidence)
    said = f"{np.sum(marks == 1)} won, {np.sum(marks == 0.5)} tied and {np.sum(marks == 0)} lost of {len(marks)}"
    measured = replace(
        blank, candidate=rate, incumbent=1 - rate, difference=rate - 0.5, low=low - 0.5, high=high - 0.5,
        p=drawn.p_below(0.5 - judge.tolerance),
        why=f"{said}, plainly {marks.mean():.0%}; at equal length {rate:.0%}; {_trust(calibration, settings)}",
    )  # fmt: skip
    if calibration.kappa_low < judge.min_kappa:
        return replace(measured, is_too_few=True, p=1.0, why=f"the judge is not heard: {_trust(calibration, settings)}")
    if "over_budget" in silences(found):
        return replace(measured, is_too_few=True, p=1.0, why=f"{measured.why}{_unheard(found)}")
    return measured


def _trust(calibration: Calibration, settings: EvaluateAdapter) -> str:
    weak = "weak judge, " if settings.judge.style == "likelihood" else ""
    return (
        f"{weak}kappa {calibration.kappa:.2f} with people (at least {calibration.kappa_low:.2f}, needed "
        f"{settings.judge.min_kappa:.2f}) on {calibration.n} votes, verdicts turned with the order in "
        f"{calibration.flip_rate:.0%}"
    )


def _unheard(found: Sequence[Outcome]) -> str:
    reasons = ", ".join(f"{reason.replace('_', ' ')} {num}" for reason, num in silences(found).items())
    return f"; not judged: {reasons} (see evaluate_adapter.judge)" if reasons else ""


def _flow(found: Sequence[Outcome]) -> Flow:
    drops = silences(found)
    return Flow(rows_in=len(found), rows_out=len(found) - sum(drops.values()), drops=drops)
