"""The scheduler model against scripted worlds; every script is data in scenarios.yaml."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from ratchet.errors import UserError
from ratchet.rehearsal.canary_spec import Canary, Hook, Metric, read_canary, seconds
from ratchet.rehearsal.flagger import Phase, Readiness, Scheduler, Status

SCENARIOS = yaml.safe_load((Path(__file__).parent / "scenarios.yaml").read_text())
HOOKS = ["confirm-rollout", "pre-rollout", "rollback", "confirm-traffic-increase", "confirm-promotion", "post-rollout"]


@dataclass
class ScriptedWorld:
    """A world in memory; a script sets readiness and answers. Templates are letters, and hash to themselves."""

    template: str = "A"
    primary_template: str | None = None
    replicas: int = 1
    weight: int = 0
    target: str = "ready"
    primary: str = "ready"
    refuse: list[str] = field(default_factory=list)
    fire: list[str] = field(default_factory=list)
    push_at: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    published: Status = field(default_factory=Status)

    def target_spec(self) -> str:
        return self.template

    def target_readiness(self) -> Readiness:
        return Readiness(self.target)

    def primary_readiness(self) -> Readiness:
        return Readiness(self.primary)

    def canary_weight(self) -> int:
        return self.weight

    def set_route(self, canary_weight: int) -> None:
        self.weight = canary_weight

    def scale_target(self, replicas: int) -> None:
        self.replicas = replicas

    def create_primary(self) -> None:
        self.primary_template = self.primary_template or self.template

    def promote(self) -> None:
        self.primary_template = self.template

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        self.calls.append((hook.type, phase, checksum))
        self.template = self.push_at.get(hook.type, self.template)
        return hook.type in self.fire if hook.type == "rollback" else hook.type not in self.refuse

    def measure(self, metric: Metric) -> float | None:
        return self.values.get(metric.name)

    def record(self, text: str, phase: Phase, checksum: str, is_warning: bool) -> None:
        self.events.append((phase, self.published.phase))

    def publish(self, status: Status) -> None:
        self.published = status


def canary_of(settings: dict[str, Any]) -> Canary:
    analysis = {"threshold": 2, "stepWeights": [20, 50]} if "stepWeight" not in settings else {}
    flags = {key: settings[key] for key in ("skipAnalysis", "suspend") if key in settings}
    analysis |= {key: value for key, value in settings.items() if key not in ("hooks", *flags)}
    hooks = [{"name": kind, "type": kind, "url": "http://gate"} for kind in settings.get("hooks", HOOKS)]
    spec = {"targetRef": {"name": "router"}, "analysis": analysis | {"webhooks": hooks}, **flags}
    return read_canary({"metadata": {"name": "router", "namespace": "test"}, "spec": spec})


@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario["name"] for scenario in SCENARIOS])
def test_scheduler_follows_the_script(scenario: dict[str, Any]) -> None:
    world, canary = ScriptedWorld(), canary_of(scenario.get("canary", {}))
    scheduler = Scheduler(world)
    if not scenario.get("fresh"):
        scheduler.tick(canary)
    for number, turn in enumerate(scenario["ticks"]):
        do = turn.get("do", {})
        world.calls.clear()
        world.template = do.get("push", world.template)
        for name in ("target", "primary", "refuse", "fire", "push_at", "values"):
            setattr(world, name, do.get(name, getattr(world, name)))
        canary = replace(
            canary,
            skip_analysis=do.get("skip", canary.skip_analysis),
            is_suspended=do.get("suspend", canary.is_suspended),
        )
        scheduler.tick(canary)
        _check_turn(f"tick {number}", turn, world, scheduler.status)
    _check_end(scenario.get("end", {}), world, scheduler.status)


def _check_turn(place: str, turn: dict[str, Any], world: ScriptedWorld, status: Status) -> None:
    phase, weight, failed = turn["then"]
    assert (status.phase, world.weight, status.failed_checks) == (phase, weight, failed), place
    assert world.published == status, place
    if "calls" in turn:
        assert [hook for hook, _, _ in world.calls] == turn["calls"], place
    if "replicas" in turn:
        assert world.replicas == turn["replicas"], place
    if "status_weight" in turn:
        assert status.canary_weight == turn["status_weight"], place
    if "checksum" in turn:
        assert status.last_applied_spec == turn["checksum"], place


def _check_end(end: dict[str, Any], world: ScriptedWorld, status: Status) -> None:
    found = {
        "primary": world.primary_template,
        "replicas": world.replicas,
        "applied": status.last_applied_spec,
        "promoted": status.last_promoted_spec,
    }
    assert {key: found[key] for key in end} == end


def test_confirm_rollout_still_carries_the_previous_checksum() -> None:
    world, canary = ScriptedWorld(), canary_of({})
    scheduler = Scheduler(world)
    scheduler.tick(canary)
    world.template = "B"
    scheduler.tick(canary)
    assert world.calls == [("confirm-rollout", "Initialized", "A")]


def test_failure_is_told_before_the_status_says_so() -> None:
    world, canary = ScriptedWorld(fire=["rollback"]), canary_of({})
    scheduler = Scheduler(world)
    for template in ("A", "B", "B"):
        world.template = template
        scheduler.tick(canary)
    assert ("Failed", "Progressing") in world.events
    assert world.calls[-1] == ("post-rollout", "Failed", "B")


@pytest.mark.parametrize("key", ["iterations", "match", "mirror", "sessionAffinity"])
def test_what_is_not_modelled_is_refused_by_name(key: str) -> None:
    with pytest.raises(UserError, match=rf"analysis\.{key} is not modelled"):
        canary_of({key: [{"name": "request-success-rate"}]})


@pytest.mark.parametrize("lacks", ["templateRef", "interval"])
def test_a_metric_that_would_never_pass_is_refused(lacks: str) -> None:
    metric = {"name": "errors", "templateRef": {"name": "router-errors"}, "interval": "1m"}
    with pytest.raises(UserError, match="errors: give it a templateRef and an interval"):
        canary_of({"metrics": [{key: value for key, value in metric.items() if key != lacks}]})


def test_durations() -> None:
    assert (seconds("30s"), seconds("2m"), seconds("1m30s")) == (30.0, 120.0, 90.0)
    with pytest.raises(UserError, match="not a duration"):
        seconds("10")


def test_interval_has_flaggers_floor() -> None:
    assert canary_of({"interval": "1s"}).interval_s == 10.0
