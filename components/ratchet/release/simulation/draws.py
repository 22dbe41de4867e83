"""Simulate many canaries at once: draw their votes, and find when the gate's own e-process decides on each.

Votes come in blocks as the gate forms them at one weight. All runs of a simulation have the same number of baseline
votes at any block, so the e-process is evaluated once per distinct number of up votes: the production code computes a
vote's evidence, and only the sums are done in arrays.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratchet.release.gate.eprocess import EProcess

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True, kw_only=True)
class Truth:
    """The chance that a vote is up. Both arms drift alike; a brigade votes against the candidate in both arms."""

    baseline: float
    drop: float = 0.0
    """Of the candidate below the baseline."""
    drift: float = 0.0
    """Amplitude of a common swing of both arms, a sine with a phase and a period of each run's own."""
    brigade: float = 0.0
    """Share of the voters who vote every answer of the baseline up and every answer of the candidate down."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Up votes of each run (row) in each block (column), of `num_a` baseline and `num_b` candidate votes."""

    num_a: int
    num_b: int
    ups_a: Ints
    ups_b: Ints

    @property
    def num_runs(self) -> int:
        return len(self.ups_a)

    @property
    def num_blocks(self) -> int:
        return int(self.ups_a.shape[1])


def draw(truth: Truth, shape: tuple[int, int], num_blocks: int, num_runs: int, seed: int) -> Draws:
    """Draw the votes of `num_runs` canaries."""
    rng = np.random.default_rng(seed)
    phases = rng.uniform(0, 1, (num_runs, 1))
    periods = rng.uniform(0.5, 4, (num_runs, 1))
    swing = truth.drift * np.sin(2 * np.pi * (phases + periods * np.arange(num_blocks) / num_blocks))
    base = truth.baseline + swing
    rates_a = base + truth.brigade * (1 - base)
    rates_b = (base - truth.drop) * (1 - truth.brigade)
    return Draws(
        num_a=shape[0],
        num_b=shape[1],
        ups_a=rng.binomial(shape[0], rates_a, (num_runs, num_blocks)),
        ups_b=rng.binomial(shape[1], rates_b, (num_runs, num_blocks)),
    )


def first_rejections(process: EProcess, draws: Draws, bound: float) -> Ints:
    """Return, per run, the first block after which `process` rejects its null, evaluated after each; else NEVER."""
    logs = np.tile(process.log_factors, (draws.num_runs, 1))
    ups = np.zeros(draws.num_runs, dtype=np.int64)
    first = np.full(draws.num_runs, NEVER)
    for block in range(draws.num_blocks):
        seen, which = np.unique(ups, return_inverse=True)
        votes_a = block * draws.num_a
        table = np.array([process.vote_logs(int(up), votes_a, draws.num_a, draws.num_b) for up in seen])
        up_a, up_b = draws.ups_a[:, block], draws.ups_b[:, block]
        counts = np.stack([up_a, draws.num_a - up_a, up_b, draws.num_b - up_b], axis=1)
        logs += np.einsum("rgv,rv->rg", table[which], counts)
        has_rejected = np.logaddexp.reduce(logs, axis=1) >= bound
        first = np.where(has_rejected & (first == NEVER), block + 1, first)
        ups += up_a
    return first
