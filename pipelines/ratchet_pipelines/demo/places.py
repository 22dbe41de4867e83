"""Read the champion from the four places that must agree: traffic, MLflow, Git and the ledger."""

from dataclasses import dataclass

from ratchet.config import Config
from ratchet.registry.aliases import champion
from ratchet.release.ledger import serving
from ratchet.release.reconciler.targets import open_targets
from ratchet.store import Store


@dataclass(frozen=True)
class AdapterSighting:
    name: str
    adapter: str
    digest: str


def who_is_champion(config: Config, store: Store) -> list[AdapterSighting]:
    """Return the champion by each place, read from each place itself."""
    with open_targets(config, store) as targets:
        snapshot = targets.cluster.look()
        alias = champion(targets.registry, targets.model)
        named = targets.values.read_adapter()
        last = serving(targets.ledger.records())
    return [
        AdapterSighting(
            f"traffic ({100 - snapshot.weight}% to primary)", str(snapshot.primary), snapshot.primary.digest
        ),
        AdapterSighting(
            "MLflow alias champion",
            f"{targets.model}@v{alias.version}" if alias else "-",
            str(getattr(alias, "tags", {}).get("adapter_digest", "-")),
        ),
        AdapterSighting("Git values file", str(named), named.digest),
        AdapterSighting("ledger, last promoted", str(last or "-"), last.digest if last else "-"),
    ]
