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
from ratchet.lease import acquire, release
from ratchet.registry import aliases
from ratchet.release.ledger import Ledger, LedgerEntry, open_request, read_ledger, request, request_abort
from ratchet.release.operator_rollback import request_rollback
from ratchet.release.reconciler.lease_guard import LeaseLost
from ratchet.release.reconciler.reconcile import reconcile
from ratchet.release.reconciler.targets import LEASE, Targets, lease_s, open_targets
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
def targets(config: Config, released_lake: LocalStore) -> Iterator[Targets]:
    with open_targets(config, released_lake) as opened:
        yield opened


def open_release(targets: Targets, cluster: FakeCluster) -> None:
    """As the release step does: the ledger first, then Git; then Argo CD syncs and Flagger starts."""
    entry = LedgerEntry(
        event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass", applied_spec="spec-0"
    )
    assert request(targets.ledger, entry)
    targets.values.write_adapter(lambda named: NEW, "Release", f"adapter-router/{NEW.digest}/1")
    cluster.start_run(weight=50)


def dying(targets: Targets, writes: int) -> Targets:
    countdown = iter(range(writes, -100, -1))
    values, registry = DiesBefore(targets.values, countdown), DiesBefore(targets.registry, countdown)
    return replace(targets, ledger=Ledger(DiesBefore(targets.store, countdown)), values=values, registry=registry)


def settle(targets: Targets, cluster: FakeCluster) -> None:
    """Passes until the release is closed, Argo CD syncing in between."""
    for _ in range(5):
        reconcile(targets, time.time())
        if open_request(targets.ledger.records()) is None:
            return
        cluster.target = targets.values.read_adapter()
    raise AssertionError("the release stays open")


def places(targets: Targets) -> dict[str, Any]:
    return {
        "aliases": aliases.aliases(targets.registry, "adapter"),
        "quarantined": targets.registry.get_model_version("adapter", "2").tags.get("quarantined"),
        "git": targets.values.read_adapter(),
        "ledger": [record.event for record in read_ledger(targets.store)],
        "commits": len(git("log", "--format=%h", "main", cwd=Path(targets.values.url)).splitlines()),
    }


@pytest.mark.parametrize("writes", range(7))
def test_a_promotion_killed_before_any_write_is_completed(targets: Targets, cluster: FakeCluster, writes: int) -> None:
    killed_then_settled(targets, cluster, FakeCluster.succeed, writes)
    assert places(targets) == PROMOTED


@pytest.mark.parametrize("writes", range(4))
def test_a_rollback_killed_before_any_write_is_completed(targets: Targets, cluster: FakeCluster, writes: int) -> None:
    killed_then_settled(targets, cluster, FakeCluster.fail, writes)
    assert places(targets) == ROLLED_BACK


def killed_then_settled(
    targets: Targets, cluster: FakeCluster, end: Callable[[FakeCluster], None], writes: int
) -> None:
    open_release(targets, cluster)
    end(cluster)
    with pytest.raises(Killed):
        settle(dying(targets, writes), cluster)
    assert open_request(read_ledger(targets.store)) is not None  # closing is the last write
    settle(targets, cluster)
    settle_again = reconcile(targets, time.time())
    assert settle_again.action.kind == "nothing"


def test_a_fix_pushed_meanwhile_is_not_reverted(targets: Targets, cluster: FakeCluster) -> None:
    """Somebody names a third adapter between our look at Git and our write to it."""
    open_release(targets, cluster)
    cluster.fail()
    fix = NEW.model_copy(update={"version": "3", "digest": "c" * 64})
    pushed = []

    class Raced:
        def __getattr__(self, name: str) -> Any:
            if name == "write_adapter" and not pushed:
                pushed.append(targets.values.write_adapter(lambda named: fix, "Fix forward", "c/c/1"))
            return getattr(targets.values, name)

    reconcile(replace(targets, values=Raced()), time.time())
    assert pushed
    assert targets.values.read_adapter() == fix
    assert places(targets) | {"git": OLD} == ROLLED_BACK


def test_a_release_named_while_we_look_is_not_taken_for_one_put_back(targets: Targets, cluster: FakeCluster) -> None:
    entry = LedgerEntry(
        event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass", applied_spec="spec-0"
    )
    assert request(targets.ledger, entry)
    named = []

    class Raced:
        def __getattr__(self, name: str) -> Any:
            found = getattr(targets.values, name)

            def call(*arguments: Any) -> Any:
                answer = found(*arguments)
                if not named:
                    named.append(targets.values.name_once(NEW, "Release", f"adapter-router/{NEW.digest}/1"))
                return answer

            return call

    assert reconcile(replace(targets, values=cast(Any, Raced())), time.time()).action.kind == "wait"
    assert named
    assert open_request(targets.ledger.records()) is not None


def test_a_failed_promotion_is_left_to_a_person(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.fail()
    cluster.canary_weight = cluster.weight = 100
    assert reconcile(targets, time.time()).action.kind == "page"
    assert targets.values.read_adapter() == NEW
    assert open_request(targets.ledger.records()) is not None


def test_a_success_of_something_else_moves_no_alias(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    targets.values.write_adapter(lambda named: OLD, "Revert by hand, mid-run", "by hand")
    cluster.target = OLD
    cluster.succeed()
    done = reconcile(targets, time.time())
    assert done.action.kind == "refuse"
    assert places(targets)["aliases"] == {"champion": "1", "challenger": "2"}
    assert places(targets)["ledger"] == ["requested", "refused"]


def test_an_abort_before_the_start_puts_git_back(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.phase, cluster.applied = "Waiting", "spec-0"
    assert reconcile(targets, time.time()).action.kind == "wait"
    request_abort(targets.ledger, "me", time.time(), "wrong adapter")
    settle(targets, cluster)
    assert places(targets)["git"] == OLD
    assert places(targets)["ledger"] == ["requested", "abort_requested", "rolled_back"]


def test_places_that_are_away_only_delay(targets: Targets, cluster: FakeCluster, repository: Path) -> None:
    open_release(targets, cluster)
    cluster.fail()
    away = repository.rename(repository.with_suffix(".away"))
    assert reconcile(targets, time.time()).action.kind == "wait"
    away.rename(repository)
    settle(targets, cluster)
    assert places(targets) == ROLLED_BACK


def test_the_lease_outlasts_the_pause_between_two_passes() -> None:
    assert 0.5 < lease_s(poll_s=0.5) < 15 < lease_s(poll_s=15.0)


def test_without_the_lease_nothing_is_done(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.fail()
    assert acquire(targets.store, LEASE, "another", time.time(), targets.lease_s)
    assert reconcile(targets, time.time()).action.kind == "wait"
    assert open_request(targets.ledger.records()) is not None
    assert reconcile(targets, time.time() + targets.lease_s + 1).action.kind == "roll_back"


def test_a_reconciler_that_slept_past_its_lease_writes_nothing_more(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.succeed()
    assert acquire(targets.store, LEASE, targets.holder, time.time(), targets.lease_s)
    guarded = targets.guarded()
    release(targets.store, LEASE, targets.holder)
    assert acquire(targets.store, LEASE, "another", time.time(), targets.lease_s)
    for write in (
        lambda: guarded.registry.set_registered_model_alias("adapter", "champion", "2"),
        lambda: guarded.values.write_adapter(lambda named: OLD, "Late", "late"),
    ):
        with pytest.raises(LeaseLost, match="not ours"):
            write()
    assert targets.values.read_adapter() == NEW


def test_an_operator_goes_back_to_what_served(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.succeed()
    settle(targets, cluster)
    assert places(targets) == PROMOTED
    request_rollback(targets.ledger, targets.cluster.look(), "base", "me", time.time(), "users complain")
    assert reconcile(targets, time.time()).action.kind == "restore"
    text = git("show", "main:env/values.yaml", cwd=Path(targets.values.url))
    assert "skipAnalysis: true" in text
    cluster.target, cluster.applied = OLD, "spec-of-base"
    cluster.succeed()
    assert reconcile(targets, time.time()).action.kind == "promote"
    found = places(targets)
    assert (found["git"], found["quarantined"]) == (OLD, "true")
    assert found["aliases"] == {"previous": "1"}
    assert found["ledger"] == ["requested", "promoted", "requested", "restored"]
    assert "skipAnalysis: false" in git("show", "main:env/values.yaml", cwd=Path(targets.values.url))


@pytest.mark.slow  # starts a process that imports MLflow
def test_the_service_settles_releases(config: Config, targets: Targets, cluster: FakeCluster, tmp_path: Path) -> None:
    open_release(targets, cluster)
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
        targets.store.root,
    ]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as service:
        try:
            deadline = time.monotonic() + 90
            while open_request(read_ledger(targets.store)) and time.monotonic() < deadline:
                time.sleep(0.1)
        finally:
            service.kill()
            service.communicate()
    assert places(targets) == PROMOTED
