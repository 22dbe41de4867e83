"""Open every place that a release touches: ledger, cluster, Git, registry, gate."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx

from ratchet.config import Config, ReleaseAdapter
from ratchet.errors import UserError
from ratchet.lease import Watch, new_holder, release
from ratchet.registry.aliases import Registry, RegistryWriter
from ratchet.release.gate.tokens import VARIABLE, bearer
from ratchet.release.ledger import Ledger
from ratchet.release.reconciler.argocd import Refresh
from ratchet.release.reconciler.gitops import Values, ValuesFile, ValuesWriter
from ratchet.release.reconciler.kubernetes import Cluster, ClusterReader
from ratchet.release.reconciler.lease_guard import GuardedRegistry, GuardedValues, LeaseGuard
from ratchet.store import Store

LEASE = "leases/reconciler.json"
MIN_LEASE_S = 5.0  # longer than a pass takes; effects are idempotent, so even two holders only do double work
POLLS = 3  # a holder may miss two polls
log = logging.getLogger("ratchet.reconcile")


@dataclass(frozen=True, kw_only=True)
class Writers:
    """The ports by which an effect changes registry and Git."""

    registry: RegistryWriter
    values: ValuesWriter


@dataclass(frozen=True, kw_only=True)
class Targets:
    """Every place that a release touches. The reconciler writes through `guarded()`."""

    store: Store
    ledger: Ledger
    cluster: Cluster
    values: Values
    registry: Registry
    model: str
    """Registered model name."""
    gate_state: Callable[[], dict[str, Any]]
    """The gate's /state; empty while it does not answer."""
    holder: str
    """Our name on the reconciler's lease."""
    lease_s: float
    clock: Callable[[], float] = time.time
    watch: Watch = field(default_factory=Watch)
    """What we saw of another's lease."""

    def guarded(self) -> Writers:
        """Return the writing side of registry and Git; each write raises LeaseLost once the lease is not ours."""
        guard = LeaseGuard(store=self.store, lease=LEASE, holder=self.holder, clock=self.clock)
        return Writers(registry=GuardedRegistry(self.registry, guard), values=GuardedValues(self.values, guard))


@contextmanager
def open_targets(config: Config, store: Store) -> Iterator[Targets]:
    """Connect to every place, and end our lease on leaving. Raises UserError for a place that is missing."""
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
            values=stack.enter_context(
                ValuesFile(settings.git_url, settings.branch, settings.values_path, on_push=_refresh(settings))
            ),
            registry=connect(config, store),
            model=config.registry.model,
            gate_state=partial(read_gate, settings.gate_url, os.environ.get(VARIABLE, "")),
            holder=holder,
            lease_s=lease_s(settings.poll_s),
        )
        release(store, LEASE, holder)


def _refresh(settings: ReleaseAdapter) -> Refresh | None:
    if settings.argocd_url is None:
        return None
    return Refresh(settings.argocd_url, settings.argocd_application)


def lease_s(poll_s: float) -> float:
    """Return the lease's length in seconds for a reconciler that makes a pass every `poll_s` seconds."""
    return max(MIN_LEASE_S, POLLS * poll_s)


def read_gate(url: str | None, token: str) -> dict[str, Any]:
    """Return the gate's /state; empty while it does not answer us. It only gives reasons: nothing waits for it."""
    if url is None:
        return {}
    try:
        answer = httpx.get(f"{url}/state", timeout=2, headers=bearer(token) if token else {})
    except httpx.TransportError:
        return {}
    if answer.status_code == httpx.codes.UNAUTHORIZED:
        log.warning("the gate at %s does not know our token; set %s as it is set there", url, VARIABLE)
    state: dict[str, Any] = answer.json() if answer.status_code == httpx.codes.OK else {}
    return state
