"""After any end, killed anywhere on the way, registry, Git and ledger agree with what serves."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.lease import acquire, release
from ratchet.registry import aliases
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.ledger import (
    Ledger,
    LedgerEntry,
    close,
    open_request,
    quarantined,
    read_ledger,
    request,
    request_abort,
)
from ratchet.release.operator_rollback import request_rollback
from ratchet.release.reconciler.actions import first_values
from ratchet.release.reconciler.gitops import DecideValues, ReleaseValues
from ratchet.release.reconciler.lease_guard import LeaseLost
from ratchet.release.reconciler.reconcile import PAGE_AFTER_S, Watch, reconcile
from ratchet.release.reconciler.targets import LEASE, Targets, lease_s, open_targets
from ratchet.store import LocalStore
from support.release_edges import NEW, OLD, FakeCluster, git, write_settings

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


class Killed(BaseException):
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
        event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass", applied_spec="spec-0",
        condition_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    assert request(targets.ledger, entry)
    targets.values.name_once(ReleaseValues(NEW), "Release", f"adapter-router/{NEW.digest}/1")
    cluster.start_run(weight=50)
    TrafficLog(targets.store, 1).observe(time.time(), 50)


def naming(adapter: AdapterRef) -> DecideValues:
    return lambda now: replace(now, adapter=adapter)


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
        named = targets.values.look("")[0]
        cluster.target, cluster.nonces["target"] = named.adapter, named.nonce
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
            if name == "write" and not pushed:
                pushed.append(targets.values.write(naming(fix), "Fix forward", "c/c/1"))
            return getattr(targets.values, name)

    reconcile(replace(targets, values=Raced()), time.time())
    assert pushed
    assert targets.values.read_adapter() == fix
    assert places(targets) | {"git": OLD} == ROLLED_BACK


def test_a_release_named_while_we_look_is_not_taken_for_one_put_back(targets: Targets, cluster: FakeCluster) -> None:
    entry = LedgerEntry(
        event="requested", at=time.time(), who="t", adapter=NEW, baseline=OLD, verdict="pass", applied_spec="spec-0",
        condition_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    assert request(targets.ledger, entry)
    named = []

    class Raced:
        def __getattr__(self, name: str) -> Any:
            found = getattr(targets.values, name)

            def call(*arguments: Any) -> Any:
                answer = found(*arguments)
                if not named:
                    named.append(
                        targets.values.name_once(ReleaseValues(NEW), "Release", f"adapter-router/{NEW.digest}/1")
                    )
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
    targets.values.write(naming(OLD), "Revert by hand, mid-run", "by hand")
    cluster.target = OLD
    cluster.succeed()
    done = reconcile(targets, time.time())
    assert done.action.kind == "refuse"
    assert places(targets)["aliases"] == {"champion": "1", "challenger": "2"}
    assert places(targets)["ledger"] == ["requested", "refused"]


def test_an_abort_before_the_start_puts_git_back(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.enter("Waiting")
    cluster.applied = "spec-0"
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
        lambda: guarded.values.write(naming(OLD), "Late", "late"),
    ):
        with pytest.raises(LeaseLost, match="not ours"):
            write()
    assert targets.values.read_adapter() == NEW


def test_an_operator_goes_back_without_analysis_first_and_to_the_adapter_once_the_canary_has_it(
    targets: Targets, cluster: FakeCluster
) -> None:
    open_release(targets, cluster)
    cluster.succeed()
    settle(targets, cluster)
    assert places(targets) == PROMOTED
    request_rollback(targets.ledger, targets.cluster.look(), "base", "me", time.time(), "users complain")
    assert reconcile(targets, time.time()).action.kind == "skip_analysis"
    assert targets.values.look("")[0] == ReleaseValues(NEW, skip_analysis=True)
    assert reconcile(targets, time.time()).action.kind == "wait"
    cluster.skip_analysis = True
    assert reconcile(targets, time.time()).action.kind == "name_again"
    named = targets.values.look("")[0]
    assert named.adapter == OLD
    cluster.target, cluster.nonces["target"], cluster.applied = OLD, named.nonce, "spec-of-base"
    cluster.succeed()
    cluster.is_primary_up = False
    assert "not up yet" in reconcile(targets, time.time()).action.why
    cluster.is_primary_up = True
    assert reconcile(targets, time.time()).action.kind == "promote"
    found = places(targets)
    assert (found["git"], found["quarantined"]) == (OLD, "true")
    assert found["aliases"] == {"previous": "1"}
    assert found["ledger"] == ["requested", "promoted", "requested", "restored"]
    assert "skipAnalysis: false" in git("show", "main:env/values.yaml", cwd=Path(targets.values.url))


def test_a_release_that_took_no_requests_is_put_back_and_not_quarantined(
    targets: Targets, cluster: FakeCluster
) -> None:
    open_release(targets, cluster)
    for key in list(targets.store.list("canaries")):
        targets.store.remove(key)
    cluster.fail()
    settle(targets, cluster)
    found = places(targets)
    assert (found["git"], found["quarantined"]) == (OLD, None)
    assert not quarantined(read_ledger(targets.store))


@pytest.mark.parametrize("applied", ["spec-0", "spec-of-bbbb"])
def test_a_failure_of_the_release_before_is_not_taken_for_this_ones(
    targets: Targets, cluster: FakeCluster, applied: str
) -> None:
    """Once Failed, Flagger records what it will run before it asks anybody: only the condition's clock tells a run."""
    cluster.fail()
    open_release(targets, cluster)
    request_at = read_ledger(targets.store)[-1].condition_at
    cluster.phase, cluster.condition_at, cluster.applied, cluster.weight = "Failed", request_at, applied, 0
    done = reconcile(targets, time.time())
    assert done.action.kind == ("wait" if applied == "spec-0" else "name_again")
    assert targets.values.read_adapter() == NEW
    assert open_request(read_ledger(targets.store)) is not None


def fail_promotion(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.primary = NEW
    cluster.fail()
    cluster.canary_weight = cluster.weight = 100
    cluster.is_primary_up = False


def test_a_failed_promotion_pages_with_the_true_weight(targets: Targets, cluster: FakeCluster) -> None:
    fail_promotion(targets, cluster)
    cluster.weight = 0  # new hosts: Flagger has written the route anew
    done = reconcile(targets, time.time())
    assert (done.action.kind, "sends 0 percent" in done.action.why) == ("page", True)


def test_a_failed_promotion_goes_on_once_primary_is_mended(targets: Targets, cluster: FakeCluster) -> None:
    fail_promotion(targets, cluster)
    cluster.is_primary_up = True
    assert reconcile(targets, time.time()).action.kind == "name_again"
    named = targets.values.look("")[0]
    assert (named.adapter, named.nonce) == (NEW, "1-spec-of-bbbb")
    cluster.nonces["target"] = named.nonce
    cluster.succeed()
    settle(targets, cluster)
    assert places(targets)["ledger"] == ["requested", "promoted"]


def test_a_failed_promotion_is_aborted_by_going_back_without_analysis(targets: Targets, cluster: FakeCluster) -> None:
    fail_promotion(targets, cluster)
    request_abort(targets.ledger, "me", time.time(), "no")
    assert reconcile(targets, time.time()).action.kind == "skip_analysis"
    cluster.skip_analysis = True
    assert reconcile(targets, time.time()).action.kind == "name_again"
    named = targets.values.look("")[0]
    assert named.adapter == OLD
    cluster.target, cluster.nonces["target"], cluster.applied = OLD, named.nonce, "spec-of-base"
    cluster.is_primary_up, cluster.canary_weight = True, 0
    cluster.succeed()
    settle(targets, cluster)
    found = places(targets)
    assert found["ledger"] == ["requested", "abort_requested", "rolled_back"]
    assert (found["git"], found["quarantined"], found["aliases"]) == (OLD, "true", {"champion": "1"})
    assert targets.values.look("")[0].skip_analysis is False


def test_a_failed_promotion_does_not_keep_an_operator_from_going_back(targets: Targets, cluster: FakeCluster) -> None:
    fail_promotion(targets, cluster)
    request_rollback(targets.ledger, targets.cluster.look(), "base", "me", time.time(), "broken")
    assert places(targets)["ledger"] == ["requested", "refused", "requested"]
    assert reconcile(targets, time.time()).action.kind == "skip_analysis"


def test_going_back_that_fails_is_tried_again_and_never_quarantined(targets: Targets, cluster: FakeCluster) -> None:
    open_release(targets, cluster)
    cluster.succeed()
    settle(targets, cluster)
    request_rollback(targets.ledger, targets.cluster.look(), "base", "me", time.time(), "users complain")
    reconcile(targets, time.time())
    cluster.skip_analysis = True
    reconcile(targets, time.time())
    first = targets.values.look("")[0].nonce
    cluster.target, cluster.nonces["target"], cluster.applied = OLD, first, "spec-of-base"
    cluster.fail()
    assert reconcile(targets, time.time()).action.kind == "name_again"
    assert targets.values.look("")[0].nonce == "3-spec-of-base" != first
    assert not quarantined(read_ledger(targets.store))


def test_a_second_attempt_is_another_revision_to_flagger(targets: Targets) -> None:
    """Once Failed, Flagger may have recorded the first one's as applied, and would never start it again."""
    entry = LedgerEntry(event="requested", at=0.0, who="t", adapter=NEW, baseline=OLD, verdict="pass")
    nonces = []
    for _ in range(2):
        opened = request(targets.ledger, entry)
        assert opened
        nonces.append(first_values(opened).nonce)
        close(targets.ledger, opened, "rolled_back", at=0.0, who="t", quarantines=False)
    assert nonces == ["", "attempt-2"]


class Away:
    """MLflow while it is away."""

    def __getattr__(self, name: str) -> Any:
        raise ConnectionError("http://me:s3cr3t@mlflow:5000/api is away")


def test_a_registry_that_is_away_is_waited_for_and_then_a_person_is_paged(
    targets: Targets, cluster: FakeCluster, caplog: pytest.LogCaptureFixture
) -> None:
    open_release(targets, cluster)
    cluster.succeed()
    watch, now = Watch(), time.time()
    with caplog.at_level("INFO", "ratchet.reconcile"):
        for later in (0.0, PAGE_AFTER_S / 2, PAGE_AFTER_S):
            done = reconcile(replace(targets, registry=cast(Any, Away())), now)
            action = watch.tell(done, now + later)
    assert (done.action.kind, action.kind) == ("wait", "page")
    assert "http://***@mlflow" in caplog.text
    assert "s3cr3t" not in caplog.text
    settle(targets, cluster)
    assert places(targets) == PROMOTED


@pytest.mark.slow  # starts a process that imports MLflow
def test_the_service_settles_releases(config: Config, targets: Targets, cluster: FakeCluster, tmp_path: Path) -> None:
    open_release(targets, cluster)
    cluster.succeed()
    settings = write_settings(config, tmp_path / "ratchet.yaml")
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
