"""Keep the duels of a release's canary in the lake: `duels/{request:08d}/{n:06d}.json`, create-only, in order.

Whoever holds duels appends; the gate reads. An object holds the duels of one round, and what they cost.
"""

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from ratchet.config import Config
from ratchet.release.gate.duels import Duel
from ratchet.release.ledger import LedgerRecord
from ratchet.store import Store

ROOT = "duels"


class DuelRound(BaseModel):
    """Duels that were judged together. `without_verdict`: prompts that were asked and got no verdict, by reason."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duels: tuple[Duel, ...]
    without_verdict: dict[str, int] = {}
    tokens: int = 0
    usd: float = 0.0


class DuelLog:
    """The rounds of one release's canary, each read once."""

    def __init__(self, store: Store, request: int) -> None:
        self.store, self.folder = store, f"{ROOT}/{request:08d}"
        self.rounds: list[DuelRound] = []

    def read(self) -> bool:
        """Read the rounds that are new; return whether there were any."""
        new = list(self.store.list(self.folder))[len(self.rounds) :]
        self.rounds += [DuelRound.model_validate_json(self.store.read(key)) for key in new]
        return bool(new)

    def append(self, held: DuelRound) -> None:
        """Add a round. Raises Conflict if another process added one meanwhile."""
        self.store.create(f"{self.folder}/{len(self.rounds):06d}.json", held.model_dump_json().encode())
        self.rounds.append(held)

    @property
    def duels(self) -> Sequence[Duel]:
        return [duel for held in self.rounds for duel in held.duels]


def is_judged(config: Config, request: LedgerRecord) -> bool:
    """Return whether duels are evidence in this release: they are on, and its judge agrees with people enough.

    Both are known before the canary starts; the gate's tests depend on it from their first look on.
    """
    judge = config.evaluate_adapter.judge
    calibrated = request.evidence.get("judge", {})
    return (
        config.gate.duels.share > 0
        and judge.style in ("openai", "anthropic")
        and (calibrated.get("style"), calibrated.get("model")) == (judge.style, judge.model)
        and calibrated.get("kappa_low", -1.0) >= judge.min_kappa
    )
