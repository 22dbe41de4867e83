"""The four places that must agree on who is champion: traffic, MLflow, Git and the ledger."""

from dataclasses import dataclass

from ratchet.config import Config
from ratchet.registry.aliases import champion
from ratchet.release.reconciler.targets import open_world
from ratchet.store import Store


@dataclass(frozen=True)
class Place:
    name: str
    adapter: str
    digest: str


def who_is_champion(config: Config, store: Store) -> list[Place]:
    """What each place says, asked of each place itself."""
    with open_world(config, store) as world:
        seen = world.cluster.look()
        alias = champion(world.registry, world.model)
        named = world.values.read_adapter()
        promoted = [record.adapter for record in world.ledger.records() if record.event == "promoted"]
    return [
        Place(f"traffic ({100 - seen.weight}% to primary)", str(seen.primary), seen.primary.digest),
        Place("MLflow alias champion", f"{world.model}@v{alias.version}" if alias else "-", _digest(alias)),
        Place("Git values file", str(named), named.digest),
        Place(
            "ledger, last promoted", str(promoted[-1]) if promoted else "-", promoted[-1].digest if promoted else "-"
        ),
    ]


def _digest(alias: object) -> str:
    return str(getattr(alias, "tags", {}).get("adapter_digest", "-"))
