"""Which of the lake's folders each service account reads, writes and deletes in: what its code touches, and no more.

`infra/terraform/roles.tf` grants just this, and `ratchet doctor --role ROLE` tries it with the credentials at hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass

ALL = "*"


@dataclass(frozen=True, kw_only=True)
class Access:
    """Folders of the lake by what an account does there; `*` is the whole lake."""

    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    delete: tuple[str, ...] = ()


STEPS = Access(
    read=(ALL,),
    write=(
        "adapters", "collections", "daily_failures", "datasets", "eval_answers", "judgements", "manifests", "parts",
        "quarantine", "queue", "references", "registry", "splits", "tables", "validated", "verdicts", "work",
    ),
    delete=("parts", "tables", "work"),
)  # fmt: skip
"""collect_triplets to register_adapter: it cannot write what a user said, nor who is live."""
RELEASE = Access(
    read=("adapters", "canaries", "ledger", "leases", "manifests", "registry", "releases", "verdicts"),
    write=("leases", "ledger", "manifests", "releases"),
)
ROLES: Mapping[str, Access] = {
    "steps": STEPS,
    "release": RELEASE,
    "gate": Access(read=("canaries", "duels", "events", "ledger"), write=("canaries",)),
    "duels": Access(read=("canaries", "duels", "events", "judgements", "ledger"), write=("duels", "judgements")),
    "router": Access(write=("events",)),
    "model-pool": Access(read=("adapters", "ledger")),
    "pipelines": Access(read=(ALL,), write=tuple(sorted({*STEPS.write, *RELEASE.write})), delete=STEPS.delete),
}
"""By the role's name; its service account is ratchet-ROLE, but for `pipelines`, Kubeflow's one account."""
