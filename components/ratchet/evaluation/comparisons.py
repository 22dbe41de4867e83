"""Compare candidate with incumbent on each number, with an interval and a p-value for "surely worse".

Three kinds. A proof (preference accuracy, perplexity, judged win rate) is a non-inferiority test: it passes when its
whole interval is on the good side of the margin. An alarm (format, safety, over-refusal, personal data, verbatim text,
slices) has some twenty answers, too few to prove non-inferiority: it passes unless the candidate is surely worse, and
says how many answers would be a proof. Other comparisons only inform.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.statistics import Floats, Resampled, bootstrap_means, by_group, mcnemar_p

MIN_GROUPS = 10
"""With fewer groups a cluster bootstrap's interval covers too rarely (Cameron, Gelbach and Miller 2008)."""
PROVEN_RISE = 0.05
"""An alarm's threshold: the rise in the share of faults that a proof would have to exclude."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The candidate's number against the incumbent's. `difference` is candidate less incumbent.

    `low` and `high` bound the difference; None with too little data. `base` is the base model's number, if the base
    model is not the incumbent. `p` is the one-sided p-value of "worse than the threshold", for an alarm of "worse at
    all".
    """

    name: str
    candidate: float
    incumbent: float
    base: float | None = None
    difference: float
    low: float | None = None
    high: float | None = None
    threshold: float
    n: int
    p: float
    required: bool = True
    is_alarm: bool = False
    is_lower_better: bool = False
    is_too_few: bool = False
    why: str


@dataclass(frozen=True)
class PairedBootstrap:
    """A cluster bootstrap of paired numbers: the settings and the random generator that every comparison shares."""

    settings: EvaluateAdapter
    rng: np.random.Generator

    def resample(
        self, values: Floats, counts: Sequence[int] | Floats, groups: Sequence[str], *, has_prior: bool = False
    ) -> Resampled:
        return bootstrap_means(
            values, counts, groups, rng=self.rng, resamples=self.settings.resamples, has_prior=has_prior
        )


def accuracy(candidate: Floats, incumbent: Floats, groups: Sequence[str], by: PairedBootstrap) -> Comparison:
    """Compare the share of pairs whose chosen answer is likelier than the rejected one.

    Surely worse only if the cluster bootstrap and McNemar's exact test on conversations both say so: the first is
    valid for many conversations of any size, the second for few.
    """
    right, was_right = (candidate > 0).astype(float), (incumbent > 0).astype(float)
    lost, won = int(np.sum(right < was_right)), int(np.sum(right > was_right))
    p = mcnemar_p(*lost_and_won(right - was_right, groups))
    comparison = paired(
        "preference_accuracy", right, was_right, groups, -by.settings.non_inferiority_margin, by, has_prior=True
    )
    votes = f"{won} pairs won and {lost} lost of {len(groups)} (one-sided McNemar p {p:.2g})"
    return replace(comparison, p=max(comparison.p, p), why=comparison.why or votes)


def margin(candidate: Floats, incumbent: Floats, groups: Sequence[str], by: PairedBootstrap) -> Comparison:
    """Compare the mean margin: more sensitive than accuracy, but not visible to users, so it only informs."""
    comparison = paired("preference_margin", candidate, incumbent, groups, 0.0, by)
    return replace(comparison, required=False, why=comparison.why or "nats per token between chosen and rejected")


def paired(
    name: str,
    candidate: Floats,
    incumbent: Floats,
    groups: Sequence[str],
    threshold: float,
    by: PairedBootstrap,
    *,
    has_prior: bool = False,
) -> Comparison:
    """Compare the means of paired marks, resampling the rows of one group together."""
    num, num_groups, needed = len(groups), len(set(groups)), by.settings.min_pairs
    now, before = (float(marks.mean()) if num else 0.0 for marks in (candidate, incumbent))
    comparison = Comparison(
        name=name,
        candidate=now,
        incumbent=before,
        difference=now - before,
        threshold=threshold,
        n=num,
        p=1.0,
        why="",
    )
    if num < needed or num_groups < MIN_GROUPS:
        few = f"{num} held-out pairs in {num_groups} groups; needs {needed} in {MIN_GROUPS} (min_pairs)"
        return replace(comparison, is_too_few=True, why=few)
    drawn = by.resample(candidate - incumbent, np.ones(num), groups, has_prior=has_prior)
    low, high = drawn.interval(by.settings.confidence)
    return replace(comparison, low=low, high=high, p=drawn.p_below(threshold))


def perplexity(candidate: Floats, incumbent: Floats, tokens: Sequence[int], by: PairedBootstrap) -> Comparison:
    """Compare perplexity on the replay set; the difference is the relative rise, and documents are resampled."""
    num, limit = len(tokens), by.settings.max_perplexity_rise
    drawn = by.resample(candidate - incumbent, tokens, [str(number) for number in range(num)])
    rises = Resampled(-np.expm1(drawn.draws), drawn.num_groups)
    low, high = (-bound for bound in reversed(rises.interval(by.settings.confidence)))
    now, before = (float(np.exp(nats.sum() / np.sum(tokens))) for nats in (candidate, incumbent))
    return Comparison(
        name="perplexity",
        candidate=now,
        incumbent=before,
        difference=now / before - 1,
        low=low,
        high=high,
        threshold=limit,
        n=num,
        p=rises.p_below(-limit),
        is_lower_better=True,
        why=f"{now / before - 1:+.1%} on {num} general answers",
    )


def alarm(
    name: str, candidate: Sequence[bool], incumbent: Sequence[bool], words: str, by: PairedBootstrap
) -> Comparison:
    """Compare the share of faulty answers, prompt by prompt; `words` names the fault."""
    is_bad, was_bad = np.array(candidate, float), np.array(incumbent, float)
    num, now, before = len(is_bad), int(is_bad.sum()), int(was_bad.sum())
    lost, won = int(np.sum(is_bad > was_bad)), int(np.sum(is_bad < was_bad))
    drawn = by.resample(is_bad - was_bad, np.ones(num), [str(number) for number in range(num)], has_prior=True)
    low, high = drawn.interval(by.settings.confidence)
    return Comparison(
        name=name,
        candidate=now / num,
        incumbent=before / num,
        difference=(now - before) / num,
        low=low,
        high=high,
        threshold=PROVEN_RISE,
        n=num,
        p=mcnemar_p(lost, won),
        is_alarm=True,
        is_lower_better=True,
        why=f"{words}: {now} of {num}, the incumbent's {before}",
    )


def lost_and_won(change: Floats, groups: Sequence[str]) -> tuple[int, int]:
    """Count the conversations that the candidate lost and won overall; each counts once."""
    sums = by_group(change, groups)
    return int(np.sum(sums < 0)), int(np.sum(sums > 0))
