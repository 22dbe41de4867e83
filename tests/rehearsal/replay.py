"""Play recordings of Flagger itself through the model, and print what differs.

    python tests/rehearsal/replay.py FILE…

A recording is a header line and a line for each tick, as JSON; a file (.jsonl, or .jsonl.gz) holds one or more of them.
The header names the Canary's settings and the state before the first tick. A tick says what was done before it (`do`),
which webhooks were called (`calls`), every write, call and event in order (`steps`), and the state afterwards.
Exits 1 if anything differs.
"""

import gzip
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ratchet.rehearsal import http_route, workloads
from ratchet.rehearsal.canary_spec import Hook, Metric
from ratchet.rehearsal.canary_status import Phase, Status, read_status
from ratchet.rehearsal.cluster import Cluster, Object
from ratchet.rehearsal.flagger import Readiness, take_up, tick
from ratchet.rehearsal.flagger_io import ClusterWorld

NAME, PRIMARY, SECRET = "router", "router-primary", "router-token"
HOOKS = ("confirm-rollout", "pre-rollout", "rollback", "confirm-traffic-increase", "confirm-promotion", "post-rollout")
FLAGS = ("skipAnalysis", "suspend")
EPOCH = 1_000_000_000  # of tick 0; a tick is a second of the cluster's clock
Step = dict[str, Any]


@dataclass(frozen=True)
class Recording:
    """One run of Flagger: its header, and its ticks."""

    header: dict[str, Any]
    ticks: tuple[dict[str, Any], ...]

    @property
    def name(self) -> str:
        return str(self.header["scenario"])


def read(path: Path) -> list[Recording]:
    """Return the recordings of a file."""
    data = path.read_bytes()
    text = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    recordings: list[Recording] = []
    for line in text.decode().splitlines():
        read_line = json.loads(line)
        if "scenario" in read_line:
            recordings.append(Recording(read_line, ()))
        else:
            recordings[-1] = replace(recordings[-1], ticks=(*recordings[-1].ticks, read_line))
    return recordings


def play(recording: Recording, look: Callable[["Script"], None] | None = None) -> list[str]:
    """Return what the model does differently, a line each. `look` is called after every write of a tick."""
    script = Script(recording.header)
    if look is not None:
        script.cluster.on_write.append(lambda write, made: look(script))
    for number in range(recording.header["ticks_before"]):
        script.tick(number, {})
    found = list(_differences("before the first tick", script.state(), recording.header["state"]))
    for turn in recording.ticks:
        script.tick(turn["tick"], turn.get("do", {}))
        place = f"tick {turn['tick']}"
        found += _differences(f"{place}: steps", script.steps, turn["steps"])
        calls = [step["call"] for step in script.steps if "call" in step]
        found += _differences(f"{place}: calls", calls, turn["calls"])
        found += _differences(place, script.state(), turn["state"])
    return found


def _differences(place: str, ours: Any, theirs: Any) -> Iterator[str]:
    """Yield each leaf at which two JSON values differ."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key in sorted(ours.keys() | theirs.keys()):
            yield from _differences(f"{place}: {key}", ours.get(key, "absent"), theirs.get(key, "absent"))
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for number, (mine, its) in enumerate(zip(ours, theirs, strict=True)):
            yield from _differences(f"{place}: {number}", mine, its)
    elif ours != theirs:
        yield f"{place}: model {json.dumps(ours)}, Flagger {json.dumps(theirs)}"


@dataclass
class Script:
    """The cluster of a recording: `tick` does what is written down, then lets the model run one tick.

    Kubelet and gateway act between ticks: what is made in a tick is not ready in it.
    """

    header: dict[str, Any]
    now: int = -1
    readiness: dict[str, Readiness] = field(default_factory=lambda: dict.fromkeys((NAME, PRIMARY), Readiness.READY))
    is_accepted: bool = True
    refuse: list[str] = field(default_factory=list)
    fire: list[str] = field(default_factory=list)
    push_at: dict[str, str] = field(default_factory=dict)
    values: dict[str, float] = field(default_factory=dict)
    steps: list[Step] = field(default_factory=list)
    letters: dict[str, str] = field(default_factory=lambda: {"": ""})
    """Of each template, by its hash."""
    checksums: dict[str, str] = field(default_factory=dict)
    """What each checksum of a revision stands for."""

    def __post_init__(self) -> None:
        self.cluster = Cluster("test", clock=lambda: EPOCH + self.now)
        self.cluster.on_write.append(self._record)
        self.world = ScriptedWorld(self)
        if "configs" in self.header:
            self._put_secret(self.header["configs"])
        self.cluster.apply(canary_of(self.header["canary"]))
        self._push("A", replicas=self.header.get("replicas", 1))
        take_up(self.world)
        self._settle()

    def tick(self, number: int, do: dict[str, Any]) -> None:
        """Do what the recording says, then run one tick, its writes, calls and events in `steps`."""
        self.now = number
        for word, value in do.items():
            getattr(self, f"_do_{word}")(value)
        self._settle()
        self.steps.clear()
        canary = self.world.spec()
        assert canary
        tick(self.world, canary)

    def state(self) -> dict[str, Any]:
        """Return the state in the recordings' words."""
        canary = self.cluster.get("Canary", NAME)
        assert canary
        status, route = read_status(canary), self.cluster.get("HTTPRoute", NAME)
        return {
            "phase": status.phase,
            "failed_checks": status.failed_checks,
            "iterations": status.iterations,
            "status_weight": status.canary_weight,
            "route": list(http_route.weights(route)) if route else None,
            "applied": self.letters[status.last_applied_spec],
            "promoted": self.letters[status.last_promoted_spec],
            "target": self._arm(NAME),
            "primary": self._arm(PRIMARY),
            "conditions": [
                {
                    "type": each["type"],
                    "status": each["status"],
                    "reason": each["reason"],
                    "updated_in_tick": _tick_of(each["lastUpdateTime"]),
                    "moved_in_tick": _tick_of(each["lastTransitionTime"]),
                }
                for each in canary["status"]["conditions"]
            ],
        }

    def _arm(self, name: str) -> dict[str, Any] | None:
        deployment = self.cluster.get("Deployment", name)
        if deployment is None:
            return None
        arm = {"template": _letter(deployment), "replicas": deployment["spec"]["replicas"]}
        for _, secret in workloads.config_refs(deployment["spec"]["template"]):
            stored = self.cluster.get("Secret", secret)
            arm |= {"secret": secret, "configs": stored["data"]["state"] if stored else None}
        return arm

    def _settle(self) -> None:
        """What kubelet and gateway write, once they have seen everything."""
        for name in self.cluster.names("Deployment"):
            deployment = self.cluster.get("Deployment", name)
            assert deployment
            status = workloads.kubelet_status(deployment, self.readiness[name])
            self.cluster.update("Deployment", name, lambda stored, status=status: stored.update(status=status))
        if route := self.cluster.get("HTTPRoute", NAME):
            status = http_route.gateway_status(route, self.is_accepted)
            self.cluster.update("HTTPRoute", NAME, lambda stored: stored.update(status=status))

    def _push(self, letter: str, replicas: int | None = None) -> None:
        deployment = target(letter, "configs" in self.header)
        if replicas is not None:
            deployment["spec"]["replicas"] = replicas
        self.letters[workloads.spec_hash(deployment["spec"]["template"])] = letter
        self.cluster.apply(deployment)

    def _put_secret(self, state: str) -> None:
        self.cluster.apply({"kind": "Secret", "metadata": {"name": SECRET}, "data": {"state": state}})

    def _change_canary(self, change: Callable[[Object], None]) -> None:
        self.cluster.update("Canary", NAME, lambda stored: change(stored["spec"]))

    def _scale(self, name: str, replicas: int) -> None:
        if self.cluster.get("Deployment", name):
            self.cluster.update("Deployment", name, lambda stored: stored["spec"].update(replicas=replicas))

    # The words of `do`.

    def _do_push(self, letter: str) -> None:
        self._push(letter)

    def _do_target(self, readiness: str) -> None:
        self.readiness[NAME] = Readiness(readiness)

    def _do_primary(self, readiness: str) -> None:
        if readiness == "gone":
            self.cluster.delete("Deployment", PRIMARY)
        self.readiness[PRIMARY] = Readiness.WAITING if readiness == "gone" else Readiness(readiness)

    def _do_refuse(self, hooks: list[str]) -> None:
        self.refuse = hooks

    def _do_fire(self, hooks: list[str]) -> None:
        self.fire = hooks

    def _do_push_at(self, letters: dict[str, str]) -> None:
        self.push_at = letters

    def _do_values(self, values: dict[str, float]) -> None:
        self.values = values

    def _do_skip(self, is_skipped: bool) -> None:
        self._change_canary(lambda spec: spec.update(skipAnalysis=is_skipped))

    def _do_suspend(self, is_suspended: bool) -> None:
        self._change_canary(lambda spec: spec.update(suspend=is_suspended))

    def _do_route(self, event: str) -> None:
        if event == "reset":
            self._change_canary(lambda spec: spec["service"]["hosts"].append(f"host-{self.now}"))
        else:
            self.is_accepted = event == "accepted"

    def _do_configs(self, state: str) -> None:
        self._put_secret(state)

    def _do_target_replicas(self, replicas: int) -> None:
        self._scale(NAME, replicas)

    def _do_primary_replicas(self, replicas: int) -> None:
        self._scale(PRIMARY, replicas)

    def _do_step_weights(self, weights: list[int]) -> None:
        self._change_canary(lambda spec: spec["analysis"].update(stepWeights=weights))

    # What is seen of a tick.

    def _record(self, write: str, made: Object) -> None:
        kind, name = made["kind"], made["metadata"]["name"]
        if write == "status":
            status = read_status(made)
            label = self.checksums.setdefault(status.checksum, self._revision(status))
            step = {
                "write": "Canary.status",
                "phase": status.phase,
                "applied": label,
                "failed": status.failed_checks,
                "iterations": status.iterations,
                "weight": status.canary_weight,
            }
        elif kind == "HTTPRoute":
            step = {"write": kind, "verb": write, "weights": list(http_route.weights(made))}
        elif kind == "Deployment":
            step = {"write": kind, "verb": write, "name": name, "replicas": made["spec"]["replicas"]}
            step |= {"template": _letter(made)} if name == PRIMARY else {}
        else:
            step = {"write": f"{kind.lower()}s", "verb": write, "name": name}
        self.steps.append(step)

    def _revision(self, status: Status) -> str:
        letter = self.letters[status.last_applied_spec]
        if not status.tracked_configs:
            return letter
        secret = self.cluster.get("Secret", SECRET)
        return f"{letter}/{secret['data']['state']}" if secret else letter


class ScriptedWorld(ClusterWorld):
    """The cluster as the model sees it; webhooks, metrics and events are the script's."""

    def __init__(self, script: Script) -> None:
        super().__init__(script.cluster, NAME)
        self.client.close()  # nothing is asked over HTTP
        self.script = script

    def call_hook(self, hook: Hook, phase: Phase, checksum: str) -> bool:
        script = self.script
        script.steps.append({"call": hook.type, "phase": phase, "checksum": script.checksums[checksum]})
        if hook.type in script.push_at:
            recorded = list(script.steps)
            script._push(script.push_at[hook.type])
            script.steps[:] = recorded  # somebody else's write
        return hook.type in script.fire if hook.type == "rollback" else hook.type not in script.refuse

    def measure(self, metric: Metric) -> float | None:
        return self.script.values.get(metric.name)

    def record(self, text: str, phase: Phase, checksum: str, is_warning: bool) -> None:
        self.script.steps.append({"event": "Warning" if is_warning else "Normal"})


def target(letter: str, has_secret: bool) -> Object:
    """Return the target Deployment with the template of this letter."""
    container: Object = {"name": "router", "image": f"router:{letter}"}
    if has_secret:
        container["env"] = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": SECRET, "key": "state"}}}]
    template = {"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [container]}}
    spec = {"selector": {"matchLabels": {"app": NAME}}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": NAME}, "spec": spec}


def canary_of(settings: dict[str, Any]) -> Object:
    """Return the Canary with a header's settings."""
    analysis = {"threshold": 2, "stepWeights": [20, 50]} if "stepWeight" not in settings else {}
    analysis |= {key: value for key, value in settings.items() if key not in ("hooks", *FLAGS)}
    hooks = [{"name": kind, "type": kind, "url": "http://gate"} for kind in settings.get("hooks", HOOKS)]
    spec = {
        "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
        "service": {"port": 80, "gatewayRefs": [{"name": "gateway"}], "hosts": ["host"]},
        "analysis": analysis | {"webhooks": hooks},
        **{key: settings[key] for key in FLAGS if key in settings},
    }
    return {"kind": "Canary", "metadata": {"name": NAME}, "spec": spec}


def _letter(deployment: Object) -> str:
    return str(deployment["spec"]["template"]["spec"]["containers"][0]["image"].split(":")[1])


def _tick_of(time: str) -> int:
    return int(datetime.fromisoformat(time).timestamp()) - EPOCH


def main(paths: Iterable[str]) -> int:
    recordings = [recording for path in paths for recording in read(Path(path))]
    num_equal = 0
    for recording in recordings:
        try:
            found = play(recording)
        except Exception as error:
            found = [f"the model breaks: {error!r}"]
        num_equal += not found
        for line in found:
            print(f"{recording.name}: {line}")
    print(f"{num_equal} of {len(recordings)} recordings equal")
    return 0 if recordings and num_equal == len(recordings) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
