"""The Canary's status as Flagger keeps it: phases, counters, hashes and the condition `Promoted`. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ratchet.digest import digest_json

Phase = Literal[
    "",
    "Initializing",
    "Initialized",
    "Waiting",
    "Progressing",
    "WaitingPromotion",
    "Promoting",
    "Finalising",
    "Succeeded",
    "Failed",
]
NEW: tuple[Phase, ...] = ("", "Initializing")
RUNNING: tuple[Phase, ...] = ("Progressing", "WaitingPromotion", "Promoting", "Finalising")
ANALYSING: tuple[Phase, ...] = ("Progressing", "WaitingPromotion")
PROMOTED = {"Initialized": "True", "Succeeded": "True", "Failed": "False"}
MESSAGES = {
    "Initializing": "New Deployment detected, starting initialization.",
    "Initialized": "Deployment initialization completed.",
    "Waiting": "Waiting for approval.",
    "WaitingPromotion": "Waiting for approval.",
    "Progressing": "New revision detected, progressing canary analysis.",
    "Promoting": "Canary analysis completed, starting primary rolling update.",
    "Finalising": "Canary analysis completed, routing all traffic to primary.",
    "Succeeded": "Canary analysis completed successfully, promotion finished.",
    "Failed": "Canary analysis failed, Deployment scaled to zero.",
}


@dataclass(frozen=True)
class Status:
    """The status without its conditions. `canary_weight` is what Flagger last wrote; the traffic follows the route."""

    phase: Phase = ""
    failed_checks: int = 0
    canary_weight: int = 0
    iterations: int = 0
    last_applied_spec: str = ""
    last_promoted_spec: str = ""
    tracked_configs: Mapping[str, str] | None = None
    """Checksums of the ConfigMaps and Secrets that the applied template names, by `kind/name`."""

    @property
    def checksum(self) -> str:
        """What webhooks are told of the revision: its template and its configs."""
        return digest_json([self.last_applied_spec, self.tracked_configs])[:10]

    def entering(self, phase: Phase) -> "Status":
        """Return the status after a mere change of phase: failed checks and hashes stay."""
        entered = replace(self, phase=phase)
        if phase not in ("Progressing", "Waiting", "Promoting"):
            entered = replace(entered, canary_weight=0, iterations=-1 if phase == "WaitingPromotion" else 0)
        is_served = phase in ("Initialized", "Succeeded")
        return replace(entered, last_promoted_spec=self.last_applied_spec) if is_served else entered


def read_status(canary: Mapping[str, Any]) -> Status:
    """Return the status of a Canary object."""
    known = canary.get("status", {})
    return Status(
        phase=known.get("phase", ""),
        failed_checks=known.get("failedChecks", 0),
        canary_weight=known.get("canaryWeight", 0),
        iterations=known.get("iterations", 0),
        last_applied_spec=known.get("lastAppliedSpec", ""),
        last_promoted_spec=known.get("lastPromotedSpec", ""),
        tracked_configs=known.get("trackedConfigs"),
    )


def written(status: Status, before: Mapping[str, Any], now: str) -> dict[str, Any]:
    """Return the status as a Canary object holds it, after `before`."""
    made = {
        "phase": status.phase,
        "failedChecks": status.failed_checks,
        "canaryWeight": status.canary_weight,
        "iterations": status.iterations,
        "lastAppliedSpec": status.last_applied_spec,
        "lastPromotedSpec": status.last_promoted_spec,
        "lastTransitionTime": now,
        "conditions": _conditions(status.phase, before.get("conditions", []), now),
    }
    return made if status.tracked_configs is None else made | {"trackedConfigs": dict(status.tracked_configs)}


def _conditions(phase: Phase, before: list[dict[str, Any]], now: str) -> list[dict[str, Any]]:
    """Return the conditions in a phase: the times move only when status or reason do."""
    promoted = PROMOTED.get(phase, "Unknown")
    last = before[0] if before else {}
    if (last.get("status"), last.get("reason")) == (promoted, phase):
        return before
    moved = last["lastTransitionTime"] if last.get("status") == promoted else now
    condition = {
        "type": "Promoted",
        "status": promoted,
        "reason": phase,
        "message": MESSAGES[phase],
        "lastUpdateTime": now,
        "lastTransitionTime": moved,
    }
    return [condition]
