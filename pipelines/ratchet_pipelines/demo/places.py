"""The four places that must agree on who is champion: traffic, MLflow, Git and the ledger."""

from dataclasses import dataclass

from ratchet.config import Config
from ratchet.store import Store


@dataclass(frozen=True)
class Place:
    name: str
    adapter: str
    digest: str


def who_is_champion(config: Config, store: Store) -> list[Place]:
    raise NotImplementedError
