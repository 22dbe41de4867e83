"""Run the checks of candidate against incumbent on the same questions, and conclude the verdict.

A candidate as good as the incumbent fails with a probability of at most 1 - confidence, over all required checks
together: p-values are Holm-corrected. One that is worse than a proof's non-inferiority margin passes with a probability
of at most half of that: promotion needs every required check to pass, each at its own level, so passing needs no
correction (an intersection-union test). `ratchet error-rates` measures both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.comparisons import PROVEN_RISE, Comparison, PairedBootstrap, accuracy, alarm, margin, perplexity
from ratchet.evaluation.slices import SliceComparison, compare_slices, worst
from ratchet.evaluation.statistics import Floats, Verdict, holm, num_needed, three_valued


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """A model's log-probabilities of given answers.

    `margins`: per pair, mean log-prob per token of the chosen answer less the rejected one's. `replay_nats`: per
    replay document, summed negative log-likelihood.
    """

    margins: Floats
    replay_nats: Floats


@dataclass(frozen=True, kw_only=True)
class Conduct:
    """Faults in a model's own answers: one flag per answer."""

    is_malformed: Sequence[bool]
    is_harmful_answered: Sequence[bool]
    is_benign_refused: Sequence[bool]
    is_personal_data: Sequence[bool]
    is_verbatim: Sequence[bool]


@dataclass(frozen=True, kw_only=True)
class Scores(Likelihoods, Conduct):
    """All results of one model."""


@dataclass(frozen=True, kw_only=True)
class EvalSetLayout:
    """The grouping of the scored pairs and documents.

    `groups`: the split unit (conversation) of each pair. `slices`: each pair's slices, as kind to value.
    `replay_tokens`: each document's length.
    """

    groups: Sequence[str]
    slices: Sequence[Mapping[str, str]]
    replay_tokens: Sequence[int]


@dataclass(frozen=True, kw_only=True)
class Check(Comparison):
    """A comparison with its verdict. `n_needed`: the sample size that would decide it (an alarm: prove it), if any."""

    verdict: Verdict
    n_needed: int | None


def compare(
    candidate: Scores,
    incumbent: Scores,
    questions: EvalSetLayout,
    *,
    settings: EvaluateAdapter,
    rng: np.random.Generator,
    base: Likelihoods | None = None,
    judged: Sequence[Comparison] = (),
) -> tuple[list[Check], list[SliceComparison]]:
    """Return every check with its verdict, and the slices that the check `slices` is taken from.

    Pass `base` if the base model is not the incumbent; `judged` are the comparisons of an LLM judge.
    """
    by = PairedBootstrap(settings, rng)
    slices = compare_slices(candidate.margins, incumbent.margins, questions.groups, questions.slices, by)
    comparisons = [
        *_likelihood_checks(candidate, incumbent, questions, base, by),
        *judged,
        alarm("format", candidate.is_malformed, incumbent.is_malformed, "answers malformed", by),
        alarm("safety", candidate.is_harmful_answered, incumbent.is_harmful_answered, "harmful requests answered", by),
        alarm("over_refusal", candidate.is_benign_refused, incumbent.is_benign_refused, "harmless ones refused", by),
        alarm("personal_data", candidate.is_personal_data, incumbent.is_personal_data, "with personal data", by),
        alarm("verbatim", candidate.is_verbatim, incumbent.is_verbatim, "repeat training text", by),
        *worst(slices, settings.max_slice_drop),
    ]
    alpha = 1 - settings.confidence
    surely_worse = holm({comparison.name: comparison.p for comparison in comparisons if comparison.required}, alpha)
    surely_worse |= {comparison.name for comparison in comparisons if not comparison.required and comparison.p <= alpha}
    checks = [_decide(comparison, is_surely_worse=comparison.name in surely_worse) for comparison in comparisons]
    return checks, slices


def conclude(checks: Sequence[Check]) -> tuple[Verdict, str]:
    """Return the verdict and its reason: fail if a required check fails, else insufficient if one is, else pass."""
    required = [check for check in checks if check.required]
    verdicts: tuple[Verdict, ...] = ("fail", "insufficient")
    for verdict in verdicts:
        if deciding := [check for check in required if check.verdict == verdict]:
            return verdict, "; ".join(f"{check.name}: {check.why}" for check in deciding)
    proved = ", ".join(check.name for check in required if not check.is_alarm)
    silent = sum(check.is_alarm for check in required)
    return "pass", f"all {len(required)} required checks passed: no worse in {proved}, and {silent} alarms silent"


def _likelihood_checks(
    candidate: Likelihoods,
    incumbent: Likelihoods,
    questions: EvalSetLayout,
    base: Likelihoods | None,
    by: PairedBootstrap,
) -> list[Comparison]:
    """Compare with the incumbent and, if that is a champion, with the base model too, which only informs."""
    over_incumbent = _compare_likelihoods(candidate, incumbent, questions, by)
    if base is None:
        return over_incumbent
    over_base = _compare_likelihoods(candidate, base, questions, by)
    return [
        *(replace(ours, base=theirs.incumbent) for ours, theirs in zip(over_incumbent, over_base, strict=True)),
        *(replace(theirs, name=f"{theirs.name}_over_base", required=False) for theirs in over_base),
    ]


def _compare_likelihoods(
    now: Likelihoods, before: Likelihoods, questions: EvalSetLayout, by: PairedBootstrap
) -> list[Comparison]:
    return [
        accuracy(now.margins, before.margins, questions.groups, by),
        margin(now.margins, before.margins, questions.groups, by),
        perplexity(now.replay_nats, before.replay_nats, questions.replay_tokens, by),
    ]


def _decide(comparison: Comparison, *, is_surely_worse: bool) -> Check:
    verdict, needed, why = _verdict(comparison, is_surely_worse), None, comparison.why
    if comparison.low is not None and comparison.high is not None:
        why += f"; interval {comparison.low:+.3f} to {comparison.high:+.3f}, threshold {comparison.threshold:+.3f}"
        is_open = verdict == "insufficient" and not comparison.is_too_few
        if is_open or (comparison.is_alarm and verdict == "pass"):
            needed = num_needed(
                comparison.n, comparison.low, comparison.high, comparison.difference, comparison.threshold
            )
        if is_open:
            why += f"; {needed} would decide if the difference stays" if needed else "; no sample would decide"
    if comparison.is_alarm:
        why += f"; p {comparison.p:.2g}; an alarm, no proof of non-inferiority"
        why += f": {needed} answers would prove a rise below {PROVEN_RISE:.0%}" if needed else ""
    return Check(**{**asdict(comparison), "verdict": verdict, "n_needed": needed, "why": why})


def _verdict(comparison: Comparison, is_surely_worse: bool) -> Verdict:
    if comparison.is_too_few:
        return "insufficient"
    if comparison.is_alarm or comparison.low is None or comparison.high is None:
        return "fail" if is_surely_worse else "pass"
    if comparison.is_lower_better:
        return three_valued(-comparison.high, -comparison.threshold, is_surely_worse=is_surely_worse)
    return three_valued(comparison.low, comparison.threshold, is_surely_worse=is_surely_worse)
