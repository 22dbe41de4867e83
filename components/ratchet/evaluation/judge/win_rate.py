"""Estimate the length-controlled win rate: how often ours would win if both answers had the same length.

Dubois, Galambosi, Liang and Hashimoto, "Length-Controlled AlpacaEval" (2024), section 3: a logistic regression of the
outcome on tanh of the standardised difference in length, evaluated at no difference. Their term for an instruction's
difficulty is for models that answered different instructions; ours answered the same, so it is left out.
"""

from collections.abc import Sequence

import numpy as np

from ratchet.evaluation.statistics import PRIOR_PAIRS, Floats, Resampled

NEWTON_STEPS = 12
RIDGE = 1.0  # penalty on the length term: without it, five wins by the longer answer would make it infinite


def win_rate(
    marks: Floats, extra_chars: Floats, groups: Sequence[str], *, resamples: int, rng: np.random.Generator
) -> tuple[float, Resampled]:
    """Return the estimate, and bootstrap draws of it over groups.

    `marks`: each pair's score, 1, 0 or 0.5. `extra_chars`: how much longer our answer is. As for votes, PRIOR_PAIRS
    pseudo-wins and as many pseudo-losses join, at equal length, each in a group of its own.
    """
    marks = np.concatenate([marks, np.ones(PRIOR_PAIRS), np.zeros(PRIOR_PAIRS)])
    spread = max(float(np.std(extra_chars)), 1e-9)
    longer = np.concatenate([np.tanh(extra_chars / spread), np.zeros(2 * PRIOR_PAIRS)])
    names, index = np.unique([*groups, *(f"\0{number}" for number in range(2 * PRIOR_PAIRS))], return_inverse=True)
    weights = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)[:, index]
    fitted = _fit(np.vstack([np.ones(len(marks)), weights]), marks, longer)
    return float(fitted[0]), Resampled(fitted[1:], len(names))


def _fit(weights: Floats, marks: Floats, longer: Floats) -> Floats:
    """Return the win rate at equal length for each row of weights: all regressions at once, by Newton's method."""
    level, slope = np.zeros(len(weights)), np.zeros(len(weights))
    for _ in range(NEWTON_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(level[:, None] + slope[:, None] * longer, -30, 30)))
        missed, curved = weights * (marks - chance), weights * chance * (1 - chance) + 1e-9
        up, along = missed.sum(axis=1), missed @ longer - RIDGE * slope
        a, b, c = curved.sum(axis=1), curved @ longer, curved @ longer**2 + RIDGE
        level, slope = level + (c * up - b * along) / (a * c - b * b), slope + (a * along - b * up) / (a * c - b * b)
    return 1 / (1 + np.exp(-level))
