"""The gate over HTTP, on a real lake: it follows a canary, survives a restart, and refuses when it cannot see."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ratchet.config import Config
from ratchet.errors import UserError
from ratchet.release.gate.app import build_app
from ratchet.release.gate.state import GateState
from ratchet.release.gate.tokens import VARIABLE, bearer, gate_token, hook_token
from ratchet.release.gate.webhooks import ALWAYS
from ratchet.release.ledger import Ledger, close, read_ledger, request_abort
from ratchet.release.reconciler.kubernetes import ClusterReader, ClusterSnapshot, ClusterUnavailable
from ratchet.store import Store
from support.release_edges import NEW, OLD, TOKEN, FakeCluster, land_votes, open_release, serving, write_settings

KNOWN = bearer(TOKEN)


@pytest.fixture
def gate(config: Config, lake: Store, cluster: FakeCluster):
    with (
        ClusterReader(cluster.url, "ratchet", "adapter-router") as seen,
        serving(build_app(GateState(config, lake, seen), TOKEN)) as url,
    ):
        yield url


def until(url: str, holds: Callable[[dict[str, Any]], bool], timeout_s: float = 20) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        state = httpx.get(f"{url}/state", headers=KNOWN).json()
        if holds(state):
            return state
        time.sleep(0.02)
    raise AssertionError(f"did not come true: {state}")


def ask(url: str, hook: str, token: str | None = None, **asker: str) -> httpx.Response:
    payload = {
        "name": "adapter-router",
        "namespace": "ratchet",
        **asker,
        "phase": "Progressing",
        "checksum": "1",
        "metadata": {"token": hook_token(TOKEN) if token is None else token},
    }
    return httpx.post(f"{url}/hooks/{hook}", json=payload)


def is_at(weight: int) -> Callable[[dict[str, Any]], bool]:
    return lambda state: state.get("weight") == weight and state.get("votes")


def test_votes_move_a_good_canary_to_promotion(gate: str, lake: Store, cluster: FakeCluster) -> None:
    until(gate, lambda state: state.get("phase") == "Initialized")
    open_release(lake)
    cluster.start_run()
    until(gate, is_at(0))
    assert ask(gate, "confirm-rollout").status_code == 200
    assert ask(gate, "confirm-traffic-increase").status_code == 200
    cluster.weight = 50
    until(gate, is_at(50))
    assert ask(gate, "confirm-traffic-increase").status_code == 403  # no votes yet
    land_votes(lake, 320, 0.4, 0.9)
    state = until(gate, lambda state: state["decision"] == "pass")
    until(gate, lambda state: ask(gate, "confirm-traffic-increase").status_code == 200)  # soon after the last step
    assert ask(gate, "confirm-promotion").status_code == 200
    assert ask(gate, "rollback").status_code == 403
    assert (state["candidate"], state["baseline"], state["attempt"]) == (NEW.digest, OLD.digest, 1)
    assert state["votes"]["canary"]["n"] == state["votes"]["primary"]["n"] == 160
    assert state["log_e"]["non_inferiority"] >= state["bound"]
    assert state["history"][-1]["log_e"]["non_inferiority"] == state["log_e"]["non_inferiority"]


def test_no_two_ticks_are_granted_a_step_on_one_look(config: Config, lake: Store, cluster: FakeCluster) -> None:
    open_release(lake)
    cluster.start_run()
    with ClusterReader(cluster.url, "ratchet", "adapter-router") as seen:
        watch = GateState(config, lake, seen)
        now = time.time()
        watch.refresh(now)
        assert watch.answer("confirm-traffic-increase", now).is_yes
        assert not watch.answer("confirm-traffic-increase", now + 9.9).is_yes  # Flagger's next tick, the same look
        watch.refresh(now + 10)  # the route is still at 0: Flagger did not take the step after all
        assert watch.answer("confirm-traffic-increase", now + 10.1).is_yes
        cluster.weight = 20
        watch.refresh(now + 12)
        assert not watch.answer("confirm-traffic-increase", now + 12.1).is_yes  # no votes at 20 yet


def test_others_who_ask_take_no_step_from_flagger(config: Config, lake: Store, cluster: FakeCluster) -> None:
    """The hook token stands in Git. Polling with it changes nothing."""
    open_release(lake)
    cluster.start_run()
    with ClusterReader(cluster.url, "ratchet", "adapter-router") as seen:
        watch, start = GateState(config, lake, seen), time.time()
        granted = []
        for tenth in range(600):
            now = start + tenth / 10
            if tenth % 10 == 0:
                watch.refresh(now)
            watch.answer("confirm-traffic-increase", now)  # somebody else, ten times a second
            if tenth % 100 == 57:
                granted.append(watch.answer("confirm-traffic-increase", now).is_yes)
        assert granted == [True] * 6


@pytest.mark.parametrize("asker", [{"name": "other"}, {"namespace": "prod"}, {"name": ""}])
def test_hooks_of_another_canary_are_refused(
    gate: str, lake: Store, cluster: FakeCluster, asker: dict[str, str]
) -> None:
    open_release(lake)
    cluster.start_run()
    until(gate, is_at(0))
    for hook in ("confirm-rollout", "confirm-traffic-increase"):
        assert ask(gate, hook).status_code == 200
        refusal = ask(gate, hook, **asker)
        assert (refusal.status_code, "judges adapter-router in ratchet" in refusal.json()["why"]) == (403, True)


def test_votes_roll_a_bad_canary_back(gate: str, lake: Store, cluster: FakeCluster) -> None:
    open_release(lake)
    cluster.start_run(weight=50)
    until(gate, is_at(50))
    assert ask(gate, "rollback").status_code == 403
    land_votes(lake, 320, 0.9, 0.3)
    state = until(gate, lambda state: state["decision"] == "fail")
    answer = ask(gate, "rollback")
    assert answer.status_code == 200
    assert "less" in answer.json()["why"]
    assert state["rollback"].startswith("users like the candidate less: ")
    assert ask(gate, "confirm-promotion").status_code == 403


def test_a_restarted_gate_knows_the_whole_run(config: Config, lake: Store, cluster: FakeCluster) -> None:
    open_release(lake)
    cluster.start_run()
    with ClusterReader(cluster.url, "ratchet", "adapter-router") as seen:
        first = GateState(config, lake, seen)
        first.refresh(time.time())
        cluster.weight = 50
        first.refresh(time.time())
        land_votes(lake, 40, 0.8, 0.7)
        later = time.time() + 5
        first.refresh(later)
        second = GateState(config, lake, seen)
        second.refresh(later)
    assert second.state == first.state
    assert second.state["votes"]["canary"]["n"] == 20
    assert second.state["minutes"] > 5 / 60


def test_evidence_begins_anew_with_each_request(config: Config, lake: Store, cluster: FakeCluster) -> None:
    first = open_release(lake)
    cluster.start_run(weight=50)
    with ClusterReader(cluster.url, "ratchet", "adapter-router") as seen:
        watch = GateState(config, lake, seen)
        watch.refresh(time.time())
        land_votes(lake, 240, 0.9, 0.2)
        watch.refresh(time.time() + 5)
        assert watch.state["decision"] == "fail"
        close(Ledger(lake), first, "rolled_back", at=time.time(), who="t")
        watch.refresh(time.time() + 1)
        assert not watch.answer("rollback", time.time()).is_yes
        open_release(lake, at=time.time() + 2)
        watch.refresh(time.time() + 2)
    assert watch.state["attempt"] == 2
    assert watch.state["votes"]["canary"]["n"] == 0
    assert not watch.answer("rollback", time.time() + 2).is_yes


def test_an_operator_can_abort(gate: str, lake: Store, cluster: FakeCluster) -> None:
    open_release(lake)
    cluster.start_run()
    until(gate, is_at(0))
    request_abort(Ledger(lake), "me", time.time(), "users call")
    until(gate, lambda state: state["rollback"] is not None)
    assert ask(gate, "rollback").status_code == 200


def test_broken_lines_are_passed_over(gate: str, lake: Store, cluster: FakeCluster) -> None:
    open_release(lake)
    cluster.start_run(weight=50)
    until(gate, is_at(50))
    today = time.strftime("%Y-%m-%d", time.gmtime())
    lake.create(f"events/feedback/dt={today}/broken.jsonl", b'{"feedback_id": 1}\nnot json\n\xff\n')
    land_votes(lake, 10, 0.5, 0.5)
    until(gate, lambda state: state["votes"]["canary"]["n"] == 5)


def test_a_gate_that_cannot_see_refuses_everything(config: Config, lake: Store, cluster: FakeCluster) -> None:
    open_release(lake)
    cluster.start_run(weight=50)
    with ClusterReader(cluster.url, "ratchet", "adapter-router") as seen:
        watch = GateState(config, lake, seen)
        assert not watch.answer("rollback", time.time()).is_yes  # never looked
        watch.refresh(time.time())
        land_votes(lake, 240, 0.9, 0.2)
        watch.refresh(time.time() + 5)
        assert watch.answer("rollback", time.time() + 6).is_yes
        stale = time.time() + 60
        yes = {hook for hook in watch.answers if watch.answer(hook, stale).is_yes}
    assert yes == set(ALWAYS)


def test_an_unknown_hook_is_refused_and_metrics_are_served(gate: str, lake: Store, cluster: FakeCluster) -> None:
    open_release(lake)
    cluster.start_run(weight=50)
    until(gate, is_at(50))
    land_votes(lake, 10, 1.0, 1.0)
    until(gate, lambda state: state["votes"]["canary"]["n"] == 5)
    assert ask(gate, "no-such-hook").status_code == 403
    text = httpx.get(f"{gate}/metrics", headers=KNOWN).text
    assert 'adapter_votes_total{arm="canary",is_up="true"} 5.0' in text
    assert 'adapter_gate_log_e{test="harm"}' in text
    assert httpx.get(f"{gate}/healthz").status_code == 200


@pytest.mark.parametrize("token", ["", "wrong", TOKEN])
def test_without_the_hook_token_no_hook_is_answered(gate: str, lake: Store, cluster: FakeCluster, token: str) -> None:
    open_release(lake)
    cluster.start_run()
    until(gate, is_at(0))
    request_abort(Ledger(lake), "me", time.time(), "users call")
    until(gate, lambda state: state["rollback"] is not None)
    assert ask(gate, "rollback", token).status_code == 403
    assert "hook token" in ask(gate, "event", token).json()["why"]
    assert ask(gate, "rollback").status_code == 200


@pytest.mark.parametrize("header", [{}, bearer("wrong"), bearer(hook_token(TOKEN)), {"Authorization": "Basic dDp0"}])
def test_without_the_operators_token_nothing_is_told_or_aborted(gate: str, lake: Store, header: dict[str, str]) -> None:
    open_release(lake)
    assert httpx.get(f"{gate}/state", headers=header).status_code == 401
    assert httpx.get(f"{gate}/releases", headers=header).status_code == 401
    assert httpx.get(f"{gate}/metrics", headers=header).status_code == 401
    assert httpx.post(f"{gate}/abort", headers=header, json={"why": "no right to"}).status_code == 401
    assert [record.event for record in read_ledger(lake)] == ["requested"]


def test_an_operator_reads_the_ledger_and_aborts_over_http(gate: str, lake: Store, cluster: FakeCluster) -> None:
    assert httpx.post(f"{gate}/abort", headers=KNOWN, json={"why": "too early"}).status_code == 409
    open_release(lake)
    cluster.start_run()
    until(gate, is_at(0))
    answer = httpx.post(f"{gate}/abort", headers=KNOWN, json={"why": "users call", "who": "me"})
    assert (answer.status_code, answer.json()["event"]) == (200, "abort_requested")
    until(gate, lambda state: state["rollback"] is not None)
    told = httpx.get(f"{gate}/releases", headers=KNOWN).json()
    assert [(record["event"], record["who"]) for record in told] == [("requested", "t"), ("abort_requested", "me")]


@pytest.mark.parametrize("body", [b"", b"not json", b"\xff\xfe", b"[]", b'{"metadata": {"token": 1}}'])
def test_a_hook_whose_body_is_broken_is_refused_and_nothing_else(gate: str, body: bytes) -> None:
    answer = httpx.post(f"{gate}/hooks/rollback", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 403


def test_a_gate_that_breaks_never_says_yes(config: Config, lake: Store, cluster: FakeCluster) -> None:
    class Broken(GateState):
        def answer(self, hook: str, now: float, asker: tuple[str, str] | None = None) -> Any:
            raise RuntimeError("a bug")

    with (
        ClusterReader(cluster.url, "ratchet", "adapter-router") as seen,
        serving(build_app(Broken(config, lake, seen), TOKEN)) as url,
    ):
        assert ask(url, "rollback").status_code == 403


def test_it_is_ready_once_it_has_looked_and_stays_so(gate: str, cluster: FakeCluster) -> None:
    until(gate, lambda state: state["why"] != "the gate has not looked yet")
    assert httpx.get(f"{gate}/readyz").status_code == 200
    cluster.target = None  # type: ignore[assignment]  # whatever goes wrong later
    time.sleep(0.3)
    assert httpx.get(f"{gate}/readyz").status_code == 200


def test_a_gate_that_has_not_looked_is_alive_and_not_ready(config: Config, lake: Store) -> None:
    class Away:
        canary = "adapter-router"

        def look(self) -> ClusterSnapshot:
            raise ClusterUnavailable("not yet")

    with serving(build_app(GateState(config, lake, Away()), TOKEN)) as url:
        assert httpx.get(f"{url}/healthz").status_code == 200
        assert httpx.get(f"{url}/readyz").status_code == 503


def test_a_gate_without_a_real_token_does_not_start() -> None:
    for environment in ({}, {"RATCHET_GATE_TOKEN": "short"}):
        with pytest.raises(UserError, match="RATCHET_GATE_TOKEN"):
            gate_token(environment)
    assert hook_token(TOKEN) != hook_token(TOKEN + "!")
    assert TOKEN not in hook_token(TOKEN)


def test_a_taken_port_is_said_plainly(config: Config, gate: str, tmp_path: Path) -> None:
    settings = write_settings(config, tmp_path / "ratchet.yaml")
    port = gate.rsplit(":", 1)[1]
    command = [
        sys.executable,
        "-m",
        "ratchet_pipelines.cli",
        "serve-gate",
        "--config",
        settings,
        "--lake",
        tmp_path,
        "--port",
        port,
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=os.environ | {VARIABLE: TOKEN}
    )
    assert done.returncode == 2
    assert "take another port" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
