"""Run the judge in the offline gate: calibrate it on users' votes, then compare the new answers with the old."""

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
from ratchet.evaluation.judge.pairwise import AnswerPair, PairOutcome, no_verdict_reasons, outcomes, questions
from ratchet.evaluation.judge.prompts import PairVerdict, Question
from ratchet.evaluation.judge.win_rate import win_rate
from ratchet.evaluation.scoring import Advance, Models
from ratchet.manifest import Flow
from ratchet.store import Store


@dataclass(frozen=True)
class Judgement:
    """A judge's contribution to the gate: a comparison, numbers for the report, and the flows of the answer pairs."""

    comparison: Comparison
    facts: dict[str, Any]
    flows: dict[str, Flow]


def answer_pairs(asked: Sequence[Pair], new: Sequence[str], old: Sequence[str]) -> list[AnswerPair]:
    """Pair the candidate's answers (ours) with the incumbent's, to the prompts of these pairs."""
    return [AnswerPair(pair.messages, now, was, pair.group) for pair, now, was in zip(asked, new, old, strict=False)]


def vote_pairs(pairs: Sequence[Pair]) -> list[AnswerPair]:
    """Pair the answers that users chose (ours) with those they rejected."""
    return [AnswerPair(pair.messages, pair.chosen, pair.rejected, pair.group) for pair in pairs]


def judge_pairs(
    pairs: Sequence[AnswerPair],
    votes: Sequence[AnswerPair],
    *,
    settings: EvaluateAdapter,
    models: Models,
    store: Store,
    rng: np.random.Generator,
    advance: Advance,
) -> Judgement:
    """Judge `pairs` (ours: the candidate's answers), and trust the judge as far as it agrees with `votes`.

    `votes` are pairs of a chosen answer (ours) and a rejected one.
    """
    judge = settings.judge
    known, labels = labelled(votes[: judge.calibration_pairs])
    asked = [*known, *pairs]
    verdicts, cost = ask(questions(asked), settings, models, store, advance)
    judged = outcomes(asked, verdicts)
    of_votes, of_pairs = judged[: len(known)], judged[len(known) :]
    calibration = calibrate(
        labels,
        of_votes,
        [pair.group for pair in known],
        confidence=settings.confidence,
        resamples=settings.resamples,
        rng=rng,
    )
    facts = {"style": judge.style, "model": judge.model, "calibration": asdict(calibration), **cost}
    flows = {"calibration": _flow(of_votes), "answer_pairs": _flow(of_pairs)}
    return Judgement(_compare(pairs, of_pairs, calibration, settings, rng), facts, flows)


def ask(
    asked: Sequence[Question], settings: EvaluateAdapter, models: Models | None, store: Store, advance: Advance
) -> tuple[list[PairVerdict], dict[str, Any]]:
    """Return the configured judge's verdicts, and their cost. Only style `likelihood` needs `models`."""
    if models is not None and settings.judge.style == "likelihood":
        return ask_base(asked, models, settings.max_tokens, advance), {"is_weak": True}
    replies = ask_endpoint(asked, settings.judge, store, advance)
    spent = replies.budget
    cost = {"requests": spent.num_requests, "tokens": spent.tokens, "usd": spent.usd, "found": replies.num_known}
    return replies.verdicts, {"is_weak": False, "cost": cost}


def _compare(
    pairs: Sequence[AnswerPair],
    judged: Sequence[PairOutcome],
    calibration: Calibration,
    settings: EvaluateAdapter,
    rng: np.random.Generator,
) -> Comparison:
    judge = settings.judge
    rows = [(pair, outcome.score) for pair, outcome in zip(pairs, judged, strict=True) if outcome.score is not None]
    marks = np.array([mark for _, mark in rows])
    blank = Comparison(
        name="judged_win_rate",
        candidate=0.5,
        incumbent=0.5,
        difference=0.0,
        threshold=-judge.non_inferiority_margin,
        n=len(rows),
        p=1.0,
        required=judge.required and judge.style != "likelihood",
        why="",
    )
    groups = [pair.group for pair, _ in rows]
    if len(rows) < settings.min_pairs or len(set(groups)) < MIN_GROUPS:
        few = f"{len(rows)} judged answers in {len(set(groups))} groups; needs {settings.min_pairs} in {MIN_GROUPS}"
        return replace(blank, is_too_few=True, why=few + _not_judged(judged))
    extra = np.array([len(pair.ours) - len(pair.theirs) for pair, _ in rows], float)
    rate, drawn = win_rate(marks, extra, groups, resamples=settings.resamples, rng=rng)
    low, high = drawn.interval(settings.confidence)
    counts = f"{np.sum(marks == 1)} won, {np.sum(marks == 0.5)} tied and {np.sum(marks == 0)} lost of {len(marks)}"
    measured = replace(
        blank,
        candidate=rate,
        incumbent=1 - rate,
        difference=rate - 0.5,
        low=low - 0.5,
        high=high - 0.5,
        p=drawn.p_below(0.5 - judge.non_inferiority_margin),
        why=f"{counts}, raw rate {marks.mean():.0%}; at equal length {rate:.0%}; {_trust(calibration, settings)}",
    )
    if calibration.kappa_low < judge.min_kappa:
        return replace(
            measured, is_too_few=True, p=1.0, why=f"the judge is not trusted: {_trust(calibration, settings)}"
        )
    if "over_budget" in no_verdict_reasons(judged):
        return replace(measured, is_too_few=True, p=1.0, why=f"{measured.why}{_not_judged(judged)}")
    return measured


def _trust(calibration: Calibration, settings: EvaluateAdapter) -> str:
    weak = "weak judge, " if settings.judge.style == "likelihood" else ""
    return (
        f"{weak}kappa {calibration.kappa:.2f} with people (at least {calibration.kappa_low:.2f}, needed "
        f"{settings.judge.min_kappa:.2f}) on {calibration.n} votes, verdicts flipped with the order in "
        f"{calibration.flip_rate:.0%}"
    )


def _not_judged(judged: Sequence[PairOutcome]) -> str:
    reasons = ", ".join(f"{reason.replace('_', ' ')} {num}" for reason, num in no_verdict_reasons(judged).items())
    return f"; not judged: {reasons} (see evaluate_adapter.judge)" if reasons else ""


def _flow(judged: Sequence[PairOutcome]) -> Flow:
    drops = no_verdict_reasons(judged)
    return Flow(rows_in=len(judged), rows_out=len(judged) - sum(drops.values()), drops=drops)
