"""After any end, killed anywhere on the way, registry, Git and ledger agree with what serves."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from ratchet.config import Config
from ratchet.lease import hold, let_go
from ratchet.registry import aliases
from ratchet.release.ledger import Entry, Ledger, open_request, read_ledger, request, request_abort
from ratchet.release.operator_rollback import ask
from ratchet.release.reconciler.lease_guard import Fenced
from ratchet.release.reconciler.reconcile import reconcile
from ratchet.release.reconciler.targets import LEASE, World, lease_s, open_world
from ratchet.store import LocalStore
from support.release_edges import NEW, OLD, FakeCluster, git

PROMOTED = {
    "aliases": {"champion": "2", "previous": "1"},
    "quarantined": "false",
    "git": NEW,
    "ledger": ["requested", "promoted"],
    "commits": 2,
}
ROLLED_BACK = {
    "aliases": {"champion": "1"},
    "quarantined": "true",
    "git": OLD,
    "ledger": ["requested", "rolled_back"],
    "commits": 3,
}


class Killed(Exception):
    """Stands for SIGKILL: nothing catches it."""


class DiesBefore:
    """Passes calls on to a real place, and dies before the n-th that would change one."""

    def __init__(self, place: Any, countdown: Iterator[int]) -> None:
        self._place, self._countdown = place, countdown

    def __getattr__(self, name: str) -> Any:
        if name.startswith(("write", "set", "delete", "create")) and next(self._countdown) == 0:
            raise Killed
        return getattr(self._place, name)


@pytest.fixture
def world(config: Config, released_lake: LocalStore) -> Iterator[World]:
    with open_world(config, released_lake) as opened:
        yield opened


def open_release(world: World, cluster: FakeCluster) -> None:
    """As the release step does: the ledger first, then Git; then Argo CD syncs and Flagger starts."""
    entry = Entry(
        event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass", applied_spec="spec-0"
    )
    assert request(world.ledger, entry)
    world.values.write_adapter(lambda named: NEW, "Release", f"adapter-router/{NEW.digest}/1")
    cluster.start_run(weight=50)


def dying(world: World, writes: int) -> World:
    countdown = iter(range(writes, -100, -1))
    values, registry = DiesBefore(world.values, countdown), DiesBefore(world.registry, countdown)
    return replace(world, ledger=Ledger(DiesBefore(world.store, countdown)), values=values, registry=registry)


def settle(world: World, cluster: FakeCluster) -> None:
    """Passes until the release is closed, Argo CD syncing in between."""
    for _ in range(5):
        reconcile(world, time.time())
        if open_request(world.ledger.records()) is None:
            return
        cluster.target = world.values.read_adapter()
    raise AssertionError("the release stays open")


def places(world: World) -> dict[str, Any]:
    return {
        "aliases": aliases.aliases(world.registry, "adapter"),
        "quarantined": world.registry.get_model_version("adapter", "2").tags.get("quarantined"),
        "git": world.values.read_adapter(),
        "ledger": [record.event for record in read_ledger(world.store)],
        "commits": len(git("log", "--format=%h", "main", cwd=Path(world.values.url)).splitlines()),
    }


@pytest.mark.parametrize("writes", range(7))
def test_a_promotion_killed_before_any_write_is_completed(world: World, cluster: FakeCluster, writes: int) -> None:
    killed_then_settled(world, cluster, FakeCluster.succeed, writes)
    assert places(world) == PROMOTED


@pytest.mark.parametrize("writes", range(4))
def test_a_rollback_killed_before_any_write_is_completed(world: World, cluster: FakeCluster, writes: int) -> None:
    killed_then_settled(world, cluster, FakeCluster.fail, writes)
    assert places(world) == ROLLED_BACK


def killed_then_settled(world: World, cluster: FakeCluster, end: Callable[[FakeCluster], None], writes: int) -> None:
    open_release(world, cluster)
    end(cluster)
    with pytest.raises(Killed):
        settle(dying(world, writes), cluster)
    assert open_request(read_ledger(world.store)) is not None  # closing is the last write
    settle(world, cluster)
    settle_again = reconcile(world, time.time())
    assert settle_again.action.does == "nothing"


def test_a_fix_pushed_meanwhile_is_not_reverted(world: World, cluster: FakeCluster) -> None:
    """Somebody names a third adapter between our look at Git and our write to it."""
    open_release(world, cluster)
    cluster.fail()
    fix = NEW.model_copy(update={"version": "3", "digest": "c" * 64})
    pushed = []

    class Raced:
        def __getattr__(self, name: str) -> Any:
            if name == "write_adapter" and not pushed:
                pushed.append(world.values.write_adapter(lambda named: fix, "Fix forward", "c/c/1"))
            return getattr(world.values, name)

    reconcile(replace(world, values=Raced()), time.time())
    assert pushed
    assert world.values.read_adapter() == fix
    assert places(world) | {"git": OLD} == ROLLED_BACK


def test_a_release_named_while_we_look_is_not_taken_for_one_put_back(world: World, cluster: FakeCluster) -> None:
    entry = Entry(
        event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass", applied_spec="spec-0"
    )
    assert request(world.ledger, entry)
    named = []

    class Raced:
        def __getattr__(self, name: str) -> Any:
            found = getattr(world.values, name)

            def call(*arguments: Any) -> Any:
                answer = found(*arguments)
                if not named:
                    named.append(world.values.name_once(NEW, "Release", f"adapter-router/{NEW.digest}/1"))
                return answer

            return call

    assert reconcile(replace(world, values=cast(Any, Raced())), time.time()).action.does == "wait"
    assert named
    assert open_request(world.ledger.records()) is not None


def test_a_failed_promotion_is_left_to_a_person(world: World, cluster: FakeCluster) -> None:
    open_release(world, cluster)
    cluster.fail()
    cluster.canary_weight = cluster.weight = 100
    assert reconcile(world, time.time()).action.does == "page"
    assert world.values.read_adapter() == NEW
    assert open_request(world.ledger.records()) is not None


def test_a_success_of_something_else_moves_no_alias(world: World, cluster: FakeCluster) -> None:
    open_release(world, cluster)
    world.values.write_adapter(lambda named: OLD, "Revert by hand, mid-run", "by hand")
    cluster.target = OLD
    cluster.succeed()
    done = reconcile(world, time.time())
    assert done.action.does == "refuse"
    assert places(world)["aliases"] == {"champion": "1", "challenger": "2"}
    assert places(world)["ledger"] == ["requested", "refused"]


def test_an_abort_before_the_start_puts_git_back(world: World, cluster: FakeCluster) -> None:
    open_release(world, cluster)
    cluster.phase, cluster.applied = "Waiting", "spec-0"
    assert reconcile(world, time.time()).action.does == "wait"
    request_abort(world.ledger, "me", time.time(), "wrong adapter")
    settle(world, cluster)
    assert places(world)["git"] == OLD
    assert places(world)["ledger"] == ["requested", "abort_requested", "rolled_back"]


def test_places_that_are_away_only_delay(world: World, cluster: FakeCluster, repository: Path) -> None:
    open_release(world, cluster)
    cluster.fail()
    away = repository.rename(repository.with_suffix(".away"))
    assert reconcile(world, time.time()).action.does == "wait"
    away.rename(repository)
    settle(world, cluster)
    assert places(world) == ROLLED_BACK


def test_the_lease_outlasts_the_pause_between_two_passes() -> None:
    assert 0.5 < lease_s(poll_s=0.5) < 15 < lease_s(poll_s=15.0)


def test_without_the_lease_nothing_is_done(world: World, cluster: FakeCluster) -> None:
    open_release(world, cluster)
    cluster.fail()
    assert hold(world.store, LEASE, "another", time.time(), world.lease_s)
    assert reconcile(world, time.time()).action.does == "wait"
    assert open_request(world.ledger.records()) is not None
    assert reconcile(world, time.time() + world.lease_s + 1).action.does == "roll_back"


def test_a_reconciler_that_slept_past_its_lease_writes_nothing_more(world: World, cluster: FakeCluster) -> None:
    open_release(world, cluster)
    cluster.succeed()
    assert hold(world.store, LEASE, world.holder, time.time(), world.lease_s)
    fenced = world.fenced()
    let_go(world.store, LEASE, world.holder)
    assert hold(world.store, LEASE, "another", time.time(), world.lease_s)
    for write in (
        lambda: fenced.registry.set_registered_model_alias("adapter", "champion", "2"),
        lambda: fenced.values.write_adapter(lambda named: OLD, "Late", "late"),
    ):
        with pytest.raises(Fenced, match="not ours"):
            write()
    assert fenced.values.read_adapter() == NEW


def test_an_operator_goes_back_to_what_served(world: World, cluster: FakeCluster) -> None:
    open_release(world, cluster)
    cluster.succeed()
    settle(world, cluster)
    assert places(world) == PROMOTED
    ask(world.ledger, world.cluster.look(), "base", "me", time.time(), "users complain")
    assert reconcile(world, time.time()).action.does == "restore"
    text = git("show", "main:env/values.yaml", cwd=Path(world.values.url))
    assert "skipAnalysis: true" in text
    cluster.target, cluster.applied = OLD, "spec-of-base"
    cluster.succeed()
    assert reconcile(world, time.time()).action.does == "promote"
    found = places(world)
    assert (found["git"], found["quarantined"]) == (OLD, "true")
    assert found["aliases"] == {"previous": "1"}
    assert found["ledger"] == ["requested", "promoted", "requested", "promoted"]
    assert "skipAnalysis: false" in git("show", "main:env/values.yaml", cwd=Path(world.values.url))


@pytest.mark.slow  # starts a process that imports MLflow
def test_the_service_settles_releases(config: Config, world: World, cluster: FakeCluster, tmp_path: Path) -> None:
    open_release(world, cluster)
    cluster.succeed()
    settings = tmp_path / "ratchet.yaml"
    settings.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [
        sys.executable,
        "-m",
        "ratchet_pipelines.cli",
        "reconcile",
        "--config",
        settings,
        "--lake",
        world.store.root,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as service:
        try:
            deadline = time.monotonic() + 90
            while open_request(read_ledger(world.store)) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            service.kill()
            service.communicate()
    assert places(world) == PROMOTED
