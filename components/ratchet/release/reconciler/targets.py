"""Every place that a release touches, opened together: ledger, cluster, Git, registry."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.lease import new_holder, release
from ratchet.release.gate.tokens import VARIABLE
from ratchet.release.ledger import Ledger
from ratchet.release.reconciler.gitops import ValuesFile
from ratchet.release.reconciler.kubernetes import ClusterReader
from ratchet.release.reconciler.lease_guard import LeaseGuard
from ratchet.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient


LEASE = "leases/reconciler.json"
MIN_LEASE_S = 5.0  # longer than a pass takes; effects are idempotent, so even two holders only do double work
POLLS = 3  # a holder may miss two polls


@dataclass(frozen=True, kw_only=True)
class Targets:
    store: Store
    ledger: Ledger
    cluster: ClusterReader
    values: ValuesFile
    registry: "MlflowClient"
    model: str
    """Registered model name."""
    gate_url: str | None
    gate_token: str
    holder: str
    """Our name on the reconciler's lease."""
    lease_s: float
    clock: Callable[[], float] = time.time

    def guarded(self) -> "Targets":
        """The same world for the holder of the lease alone: registry and Git refuse our writes once it is gone."""
        registry, values = (
            LeaseGuard(place, self.store, LEASE, self.holder, self.clock) for place in (self.registry, self.values)
        )
        return replace(self, registry=cast("MlflowClient", registry), values=cast(ValuesFile, values))


@contextmanager
def open_targets(config: Config, store: Store) -> Iterator[Targets]:
    """Connect to every place. Raises UserError where one is not configured or not there."""
    from ratchet.registry.mlflow_store import connect

    settings = config.release_adapter
    if settings.git_url is None or settings.cluster_url is None:
        missing = "git_url" if settings.git_url is None else "cluster_url"
        raise UserError(f"release_adapter.{missing} is not set; a release needs both git_url and cluster_url")
    holder = new_holder()
    with ExitStack() as stack:
        yield Targets(
            store=store,
            ledger=Ledger(store),
            cluster=stack.enter_context(ClusterReader(settings.cluster_url, settings.namespace, settings.canary)),
            values=stack.enter_context(ValuesFile(settings.git_url, settings.branch, settings.values_path)),
            registry=connect(config, store),
            model=config.registry.model,
            gate_url=settings.gate_url,
            gate_token=os.environ.get(VARIABLE, ""),
            holder=holder,
            lease_s=lease_s(settings.poll_s),
        )
        release(store, LEASE, holder)


def lease_s(poll_s: float) -> float:
    """How long the lease lasts for a reconciler that comes by every `poll_s` seconds."""
    return max(MIN_LEASE_S, POLLS * poll_s)
