"""Simulate the offline gate's error rates: many evaluations of models whose true difference is known.

Every draw goes through `compare` and `conclude`, as a real evaluation does. Pairs of one conversation are correlated,
documents differ in difficulty, and answers are faulty at random.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import special

from ratchet.config import EvaluateAdapter
from ratchet.evaluation.checks import EvalSetLayout, Scores, compare, conclude
from ratchet.evaluation.statistics import Floats

NUM_DOCUMENTS = 24  # as in prompts.yaml
NUM_ASKED = {"held_out": 8, "benign": 16, "harmful": 24}
DOCUMENT_TOKENS = (8, 40)
PAIRS_PER_CONVERSATION = 1.5
SHARED_LUCK = 0.5  # share of pairs whose outcome follows their conversation's


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A candidate's true difference from the incumbent.

    `accuracy`: of held-out accuracy. `perplexity`: the relative rise. `rates`: the rise in the share of faulty answers,
    by check. `promise`: the verdict whose rate is bounded. `disagreement`: share of pairs on which the two differ.
    """

    name: str
    promise: str = ""
    accuracy: float = 0.0
    perplexity: float = 0.0
    rates: Mapping[str, float] = field(default_factory=dict)
    disagreement: float = 0.3


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Counts of each verdict. `at_most` is the promised bound on the rate of the verdict `of` (fail or pass), if any.

    `excess_p` is the probability of at least this many errors if the promise holds.
    """

    world: str
    draws: int
    verdicts: Mapping[str, int]
    of: str | None
    at_most: float | None
    excess_p: float | None


def truths(settings: EvaluateAdapter) -> list[Truth]:
    """Return the truths to simulate: equal candidates must not fail, worse ones must not pass; others show power."""
    limit, drop = settings.max_perplexity_rise, -settings.non_inferiority_margin
    return [
        Truth(name="equal", promise="fail"),
        Truth(name="equal, rarely disagrees", promise="fail", disagreement=0.05),
        Truth(name="equal, often disagrees", promise="fail", disagreement=0.6),
        Truth(name=f"accuracy {drop:+.0%}", promise="pass", accuracy=drop),
        Truth(name=f"accuracy {drop:+.0%}, rarely disagrees", promise="pass", accuracy=drop, disagreement=0.05),
        Truth(name="accuracy -10 points", promise="pass", accuracy=-0.10),
        Truth(name=f"accuracy +25 points, perplexity {limit:+.0%}", promise="pass", accuracy=0.25, perplexity=limit),
        Truth(name="accuracy +25 points", accuracy=0.25),
        Truth(name="accuracy +25 points, half the harmful answered", accuracy=0.25, rates={"safety": 0.5}),
    ]


def simulate(world: Truth, rng: np.random.Generator, *, num_pairs: int, draws: int, settings: EvaluateAdapter) -> Rates:
    """Count the verdicts of `draws` independent evaluations."""
    verdicts = {"pass": 0, "fail": 0, "insufficient": 0}
    for _ in range(draws):
        incumbent, candidate, questions = _simulate_answers(world, num_pairs, rng)
        checks, _slices = compare(candidate, incumbent, questions, settings=settings, rng=rng)
        verdicts[conclude(checks)[0]] += 1
    alpha = 1 - settings.confidence
    at_most = {"fail": alpha, "pass": alpha / 2}.get(world.promise)
    excess = None
    if at_most is not None:
        errors = verdicts[world.promise]
        # The probability of at least `errors` in `draws` at this rate.
        excess = float(special.bdtrc(errors - 1, draws, at_most)) if errors else 1.0
    return Rates(
        world=world.name, draws=draws, verdicts=verdicts, of=world.promise or None, at_most=at_most, excess_p=excess
    )


def _simulate_answers(world: Truth, num_pairs: int, rng: np.random.Generator) -> tuple[Scores, Scores, EvalSetLayout]:
    groups = rng.integers(max(1, round(num_pairs / PAIRS_PER_CONVERSATION)), size=num_pairs)
    was_right, right = _answers(world, groups, rng)
    tokens = rng.integers(*DOCUMENT_TOKENS, size=NUM_DOCUMENTS)
    nats = rng.gamma(4, 0.6, size=NUM_DOCUMENTS) * tokens
    rise = np.log1p(world.perplexity) * tokens + rng.normal(0, 0.3, NUM_DOCUMENTS) * np.sqrt(tokens)
    questions = EvalSetLayout(
        groups=[str(group) for group in groups],
        slices=[{"tenant": str(group % 3), "language": "en"} for group in groups],
        replay_tokens=tokens.tolist(),
    )
    return _scores(was_right, nats, {}, rng), _scores(right, nats + rise, world.rates, rng), questions


def _answers(
    world: Truth, groups: "np.ndarray[tuple[int], np.dtype[np.int64]]", rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Draw margins (+1 right, -1 wrong) of incumbent and candidate at the world's rate of disagreement."""
    lost = (world.disagreement - world.accuracy) / 2
    luck = np.where(rng.random(len(groups)) < SHARED_LUCK, rng.random(len(groups))[groups], rng.random(len(groups)))
    agreed = np.where(rng.random(len(groups)) < 0.6, 1.0, -1.0)
    is_lost, is_won = luck < lost, (luck >= lost) & (luck < world.disagreement)
    return np.where(is_lost, 1.0, np.where(is_won, -1.0, agreed)), np.where(
        is_lost, -1.0, np.where(is_won, 1.0, agreed)
    )


def _scores(margins: Floats, nats: Floats, rates: Mapping[str, float], rng: np.random.Generator) -> Scores:
    def bad(check: str, share: float, *asked: str) -> list[bool]:
        num = sum(NUM_ASKED[kind] for kind in asked)
        return [bool(draw < share + rates.get(check, 0.0)) for draw in rng.random(num)]

    return Scores(
        margins=margins,
        replay_nats=nats,
        is_malformed=bad("format", 0.1, "held_out", "benign"),
        is_harmful_answered=bad("safety", 0.4, "harmful"),
        is_benign_refused=bad("over_refusal", 0.1, "benign"),
        is_personal_data=bad("personal_data", 0.02, *NUM_ASKED),
        is_verbatim=bad("verbatim", 0.02, *NUM_ASKED),
    )
