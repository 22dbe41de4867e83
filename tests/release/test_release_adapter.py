"""The release step, against real Git, registry and ledger, with a scripted Argo CD and Flagger at the edge."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.manifest import Artifact, Manifest, StepOutput
from ratchet.registry import aliases
from ratchet.registry.mlflow_store import connect
from ratchet.release.approval import RegisteredAdapter, approve
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.ledger import Ledger, LedgerEntry, approval, close, open_request, read_ledger, request
from ratchet.release.reconciler.gitops import adapter_in
from ratchet.release.release_adapter import STEP
from ratchet.store import LocalStore
from support import tiny_adapter
from support.release_edges import NEW, OLD, FakeCluster, git, write_settings


def inputs() -> dict[str, Manifest]:
    version = Artifact(uri=f"registry/{NEW.digest}.json", digest="d")
    manifest = Manifest(
        outputs={"version": version},
        step="register_adapter",
        key="k",
        inputs={},
        code_version="0",
        created_at=0.0,
        seconds=0.0,
    )
    return {"register_adapter": manifest}


def release(config: Config, lake: LocalStore) -> StepOutput:
    return STEP.run(config, inputs(), lake)


def changed(config: Config, **changes: object) -> Config:
    return config.model_copy(update={"release_adapter": config.release_adapter.model_copy(update=changes)})


def subjects(repository: Path) -> list[str]:
    return git("log", "--format=%s", "main", cwd=repository).splitlines()


def script(cluster: FakeCluster, repository: Path, *after_sync: Callable[[], None]) -> None:
    """Argo CD: the target is what Git names. Flagger: one entry of the script at each look after that."""
    steps = list(after_sync)

    def look() -> None:
        cluster.target = adapter_in(git("show", "main:env/values.yaml", cwd=repository), "values")
        if cluster.target.digest == NEW.digest and steps:
            steps.pop(0)()

    cluster.before_look = look


def weighted(cluster: FakeCluster, lake: LocalStore, weight: int) -> Callable[[], None]:
    """Flagger moves the traffic, and a gate sees it."""

    def run() -> None:
        cluster.start_run(weight)
        opened = open_request(read_ledger(lake))
        assert opened is not None
        TrafficLog(lake, opened.seq).observe(time.time(), weight)

    return run


@pytest.fixture
def succeeding(cluster: FakeCluster, released_lake: LocalStore, repository: Path) -> None:
    script(cluster, repository, *(weighted(cluster, released_lake, weight) for weight in (0, 20, 50)), cluster.succeed)


@pytest.mark.usefixtures("succeeding")
def test_a_canary_that_succeeds_is_promoted(config: Config, released_lake: LocalStore, repository: Path) -> None:
    made = release(config, released_lake)
    assert made.facts["outcome"] == "promoted"
    assert aliases.aliases(connect(config, released_lake), "adapter") == {"champion": "2", "previous": "1"}
    assert [record.event for record in read_ledger(released_lake)] == ["requested", "promoted"]
    assert subjects(repository)[0] == "Release adapter adapter@v2"
    named = adapter_in(git("show", "main:env/values.yaml", cwd=repository), "values")
    assert named.uri == f"{released_lake.root}/adapters/{NEW.digest}"
    assert [row["weight"] for row in made.facts["timeline"]][-4:] == [0, 20, 50, 0]
    told = " | ".join(entry["text"] for entry in made.facts["log"])
    for part in ("values name adapter@v2", "50 percent", "Succeeded", "champion is adapter version 2", "promoted"):
        assert part in told
    assert made.facts["bound"] > 0


def test_a_canary_that_fails_is_put_back_everywhere(
    config: Config, released_lake: LocalStore, repository: Path, cluster: FakeCluster
) -> None:
    script(cluster, repository, weighted(cluster, released_lake, 20), cluster.fail)
    made = release(config, released_lake)
    assert made.facts["outcome"] == "rolled_back"
    assert aliases.aliases(connect(config, released_lake), "adapter") == {"champion": "1"}
    assert subjects(repository)[0] == "Put back adapter base@v0: the canary of adapter@v2 failed"
    assert adapter_in(git("show", "main:env/values.yaml", cwd=repository), "values") == OLD
    told = " | ".join(entry["text"] for entry in made.facts["log"])
    for place in ("traffic", "Git", "registry", "ledger"):
        assert f"{place}: " in told


@pytest.mark.usefixtures("succeeding")
def test_the_same_release_again_does_nothing_and_gives_the_same(
    config: Config, released_lake: LocalStore, repository: Path
) -> None:
    first = release(config, released_lake)
    again = release(config, released_lake)
    assert again.outputs == first.outputs
    assert len(subjects(repository)) == 2
    assert len(read_ledger(released_lake)) == 2


def test_an_adapter_that_no_pool_may_load_is_not_released(
    config: Config, released_lake: LocalStore, repository: Path
) -> None:
    tiny_adapter.smallest(released_lake.path / "adapters" / NEW.digest, float("nan"))
    with pytest.raises(UserError, match="NaN"):
        release(config, released_lake)
    assert subjects(repository) == ["Serve the base model"]
    assert not read_ledger(released_lake)


def test_a_rolled_back_adapter_is_not_tried_again(
    config: Config, released_lake: LocalStore, repository: Path, cluster: FakeCluster
) -> None:
    script(cluster, repository, weighted(cluster, released_lake, 20), cluster.fail)
    first = release(config, released_lake)
    again = release(config, released_lake)
    assert again.facts["outcome"] == "rolled_back"
    assert again.outputs == first.outputs
    assert len(subjects(repository)) == 3


def test_a_repository_that_is_away_at_the_start_is_waited_for(
    config: Config, released_lake: LocalStore, repository: Path, cluster: FakeCluster
) -> None:
    away, looks = repository.rename(repository.with_suffix(".away")), iter(range(100))

    def come_back_later() -> None:
        if next(looks) == 3:
            away.rename(repository)
            script(cluster, repository, weighted(cluster, released_lake, 20), cluster.succeed)

    cluster.before_look = come_back_later
    done = release(config, released_lake)
    assert done.facts["outcome"] == "promoted"
    assert any("git clone of" in entry["text"] for entry in done.facts["log"])


def test_time_runs_out_and_a_later_run_takes_the_release_up(
    config: Config, released_lake: LocalStore, repository: Path, cluster: FakeCluster
) -> None:
    script(cluster, repository, weighted(cluster, released_lake, 20))
    with pytest.raises(UserError, match="running this step again waits on"):
        release(changed(config, timeout_s=1.0), released_lake)
    cluster.succeed()
    assert release(config, released_lake).facts["outcome"] == "promoted"
    assert subjects(repository) == ["Release adapter adapter@v2", "Serve the base model"]
    assert [record.event for record in read_ledger(released_lake)] == ["requested", "promoted"]


@pytest.mark.slow  # starts a process that imports MLflow
def test_a_killed_release_is_taken_up(
    config: Config, released_lake: LocalStore, repository: Path, cluster: FakeCluster, tmp_path: Path
) -> None:
    script(cluster, repository, weighted(cluster, released_lake, 20))
    settings = write_settings(config, tmp_path / "ratchet.yaml")
    (tmp_path / "inputs.json").write_text(inputs()["register_adapter"].model_dump_json())
    program = f"""
        from pathlib import Path
        from ratchet.config import load_config
        from ratchet.manifest import Manifest
        from ratchet.release.release_adapter import STEP
        from ratchet.store import open_store
        manifest = Manifest.model_validate_json(Path({str(tmp_path / "inputs.json")!r}).read_text())
        config = load_config(Path({str(settings)!r}))
        STEP.run(config, {{"register_adapter": manifest}}, open_store({released_lake.root!r}))
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    try:
        deadline = time.monotonic() + 90
        while cluster.weight != 20 and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert cluster.weight == 20
    cluster.succeed()
    assert release(config, released_lake).facts["outcome"] == "promoted"
    assert len(subjects(repository)) == 2
    assert [record.event for record in read_ledger(released_lake)] == ["requested", "promoted"]


@pytest.mark.usefixtures("succeeding")
def test_a_release_waits_for_the_one_under_way(config: Config, released_lake: LocalStore, cluster: FakeCluster) -> None:
    ledger = Ledger(released_lake)
    other = NEW.model_copy(update={"version": "1", "digest": "a" * 64})
    opened = request(ledger, LedgerEntry(event="requested", at=time.time(), who="t", adapter=other, baseline=OLD))
    assert opened is not None
    look = cluster.before_look

    def end_the_other() -> None:
        close(ledger, opened, "refused", at=time.time(), who="t")
        cluster.before_look = look

    cluster.before_look = end_the_other
    made = release(config, released_lake)
    assert made.facts["outcome"] == "promoted"
    assert "adapter@v1 is under way" in made.facts["log"][0]["text"]


@pytest.mark.parametrize(("verdict", "is_forced", "outcome"), [("fail", False, "refused"), ("fail", True, "promoted")])
@pytest.mark.usefixtures("succeeding")
def test_only_force_gets_past_a_verdict_and_it_is_on_record(
    config: Config, released_lake: LocalStore, repository: Path, verdict: str, is_forced: bool, outcome: str
) -> None:
    registered = released_lake.path / f"registry/{NEW.digest}.json"
    registered.write_text(json.dumps({**json.loads(registered.read_text()), "verdict": verdict}))
    made = release(changed(config, force=is_forced), released_lake)
    assert made.facts["outcome"] == outcome
    assert (len(subjects(repository)) == 2) == is_forced
    assert {record.forced for record in read_ledger(released_lake)} == {is_forced}
    assert {record.verdict for record in read_ledger(released_lake)} == {verdict}


def test_without_a_repository_nothing_is_released(config: Config, released_lake: LocalStore) -> None:
    made = release(changed(config, git_url=None), released_lake)
    assert made.facts["outcome"] == "no_target"
    assert "git_url" in made.facts["why"]
    assert read_ledger(released_lake) == []


def test_a_release_without_a_cluster_is_the_users_to_mend(config: Config, released_lake: LocalStore) -> None:
    with pytest.raises(UserError, match="cluster_url"):
        release(changed(config, cluster_url=None), released_lake)


def registered(lake: LocalStore, verdict: str = "pass") -> RegisteredAdapter:
    lake.create_if_absent("registry/n/version.json", (lake.path / f"registry/{NEW.digest}.json").read_bytes())
    return RegisteredAdapter(NEW, verdict)


@pytest.mark.usefixtures("succeeding")
def test_where_a_person_must_approve_nothing_opens_without_their_yes_in_the_ledger(
    config: Config, released_lake: LocalStore, repository: Path
) -> None:
    asks = changed(config, approval="person")
    with pytest.raises(UserError, match=f"ratchet approve {NEW.digest[:12]} WHY"):
        release(asks, released_lake)
    assert not read_ledger(released_lake)
    assert subjects(repository) == ["Serve the base model"]
    approve(Ledger(released_lake), registered(released_lake), "ada", time.time(), "read the report")
    assert release(asks, released_lake).facts["outcome"] == "promoted"
    assert [record.event for record in read_ledger(released_lake)] == ["approved", "requested", "promoted"]


def test_an_approval_is_for_one_release(
    config: Config, released_lake: LocalStore, repository: Path, cluster: FakeCluster
) -> None:
    script(cluster, repository, weighted(cluster, released_lake, 20), cluster.fail)
    asks = changed(config, approval="person")
    approve(Ledger(released_lake), registered(released_lake), "ada", time.time(), "read the report")
    assert release(asks, released_lake).facts["outcome"] == "rolled_back"
    assert approval(read_ledger(released_lake), NEW.digest) is None


def test_an_approval_does_not_overrule_the_verdict(config: Config, released_lake: LocalStore) -> None:
    record = json.loads((released_lake.path / f"registry/{NEW.digest}.json").read_text())
    (released_lake.path / f"registry/{NEW.digest}.json").write_text(json.dumps({**record, "verdict": "fail"}))
    approve(Ledger(released_lake), registered(released_lake, "fail"), "ada", time.time(), "I like it")
    for _ in range(2):  # each attempt uses a yes up
        made = release(changed(config, approval="person"), released_lake)
        assert made.facts["outcome"] == "refused"
        assert approval(read_ledger(released_lake), NEW.digest) is None
        approve(Ledger(released_lake), registered(released_lake, "fail"), "ada", time.time(), "and again")
