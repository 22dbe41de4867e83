"""Read from a Canary resource what the scheduler needs: analysis, webhooks, metrics, traffic steps."""

import math
import re
from dataclasses import dataclass
from typing import Any

from ratchet.errors import UserError

TOTAL_WEIGHT = 100
MIN_INTERVAL_S = 10.0  # Flagger's floor
NOT_MODELLED = (
    "iterations",
    "match",
    "mirror",
    "sessionAffinity",
    "primaryReadyThreshold",
    "canaryReadyThreshold",
)
UNITS_S = {"s": 1.0, "m": 60.0}


@dataclass(frozen=True)
class Hook:
    """One webhook of an analysis."""

    name: str
    type: str
    url: str
    timeout_s: float = 10.0
    retries: int = 0
    metadata: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Metric:
    """A query of a MetricTemplate and the range that its value must be in, ends included."""

    name: str
    low: float = -math.inf
    high: float = math.inf
    template: str = ""
    interval: str = ""

    def accepts(self, value: float | None) -> bool:
        return value is not None and self.low <= value <= self.high


@dataclass(frozen=True, kw_only=True)
class Canary:
    """A Canary's spec, defaults filled in as Flagger fills them."""

    name: str
    namespace: str
    target: str
    interval_s: float = 60.0
    threshold: int = 1
    step_weights: tuple[int, ...] = ()
    step_weight: int = 0
    max_weight: int = TOTAL_WEIGHT
    step_weight_promotion: int = 0
    hooks: tuple[Hook, ...] = ()
    metrics: tuple[Metric, ...] = ()
    skip_analysis: bool = False
    is_suspended: bool = False

    def __str__(self) -> str:
        return f"{self.name}.{self.namespace}"

    def hooks_of(self, hook_type: str) -> list[Hook]:
        return [hook for hook in self.hooks if hook.type == hook_type]

    def next_step(self, weight: int) -> int:
        """Return the percent of traffic that the next step adds; above 0 at full weight, which leads to promotion."""
        room = TOTAL_WEIGHT - weight
        if self.step_weight > 0 or not self.step_weights:
            return self.step_weight
        if room == 0:
            return 1
        if weight == 0:
            return min(room, self.step_weights[0])
        following = dict(zip(self.step_weights, self.step_weights[1:], strict=False))
        return min(room, following[weight] - weight) if weight in following else room


def read_canary(resource: dict[str, Any]) -> Canary:
    """Read the Canary from a Kubernetes object. Raises UserError for an analysis that the rehearsal does not model."""
    spec, metadata = resource["spec"], resource["metadata"]
    analysis = spec["analysis"]
    name = metadata["name"]
    if present := [key for key in NOT_MODELLED if analysis.get(key)]:
        raise UserError(f"Canary {name}: analysis.{present[0]} is not modelled by the rehearsal; leave it empty here")
    steps = tuple(analysis.get("stepWeights", ()))
    return Canary(
        name=name,
        namespace=metadata["namespace"],
        target=spec["targetRef"]["name"],
        interval_s=max(MIN_INTERVAL_S, seconds(analysis.get("interval", "60s"))),
        threshold=analysis.get("threshold") or 1,
        step_weights=steps,
        step_weight=analysis.get("stepWeight", 0),
        max_weight=min(TOTAL_WEIGHT, steps[-1]) if steps else analysis.get("maxWeight") or TOTAL_WEIGHT,
        step_weight_promotion=analysis.get("stepWeightPromotion", 0),
        hooks=tuple(_hook(plain) for plain in analysis.get("webhooks", ())),
        metrics=tuple(_metric(plain) for plain in analysis.get("metrics", ())),
        skip_analysis=spec.get("skipAnalysis", False),
        is_suspended=spec.get("suspend", False),
    )


def seconds(duration: str) -> float:
    """Convert a duration such as `90s` or `1m30s` to seconds."""
    parts = re.findall(r"(\d+)([sm])", duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise UserError(f"{duration!r} is not a duration; write it as 30s or 2m")
    return sum(float(number) * UNITS_S[unit] for number, unit in parts)


def _hook(plain: dict[str, Any]) -> Hook:
    return Hook(
        name=plain["name"],
        type=plain.get("type") or "rollout",
        url=plain["url"],
        timeout_s=seconds(plain.get("timeout") or "10s"),
        retries=plain.get("retries", 0),
        metadata=tuple(sorted(plain.get("metadata", {}).items())),
    )


def _metric(plain: dict[str, Any]) -> Metric:
    name = plain["name"]
    if "templateRef" not in plain or "interval" not in plain:
        raise UserError(
            f"analysis.metrics, {name}: give it a templateRef and an interval; Flagger's own queries read series that "
            f"routers do not export, and a template without an interval fails at every look"
        )
    limits = plain.get("thresholdRange", {"max": plain.get("threshold", 0.0)})  # by default nothing above zero passes
    low, high = limits.get("min", -math.inf), limits.get("max", math.inf)
    return Metric(name, low, high, plain["templateRef"]["name"], plain["interval"])
