"""What people read of a release: each change once, and the last votes known."""

from ratchet.adapter_ref import AdapterRef
from ratchet.release.reconciler.decide import Action
from ratchet.release.reconciler.kubernetes import ClusterSnapshot
from ratchet.release.reconciler.reconcile import ReconcileResult
from ratchet.release.timeline import Timeline
from support.release_edges import NEW, OLD


def passed(weight: int, state=None, log=()) -> ReconcileResult:
    seen = ClusterSnapshot(
        uid="u",
        phase="Progressing",
        failed_checks=0,
        canary_weight=weight,
        last_applied_spec="b",
        last_promoted_spec="a",
        target=NEW,
        primary=OLD,
        weight=weight,
    )
    return ReconcileResult(
        action=Action("wait", "the canary is Progressing"), snapshot=seen, state=state or {}, log=log
    )


def judged(up: int, decision: str = "undecided", of: AdapterRef = NEW) -> dict[str, object]:
    votes = {"primary": {"n": 9, "up": 9}, "canary": {"n": 9, "up": up}}
    log_e = {"harm": 1.0, "non_inferiority": 0.0, "srm": -1.0}
    return {"candidate": of.digest, "votes": votes, "log_e": log_e, "decision": decision, "why": "because"}


def test_what_stays_the_same_is_told_once() -> None:
    timeline = Timeline(100.0, NEW.digest)
    for now in (101.0, 102.0, 103.0):
        timeline.add(now, passed(20))
    assert [row["t"] for row in timeline.rows] == [1.0]
    assert [entry["t"] for entry in timeline.log] == [1.0, 1.0, 1.0]  # why, phase, weight


def test_a_gate_that_is_away_leaves_the_last_votes() -> None:
    timeline = Timeline(100.0, NEW.digest)
    timeline.add(101.0, passed(20, judged(3, "fail")))
    timeline.add(102.0, passed(0))
    assert [row["weight"] for row in timeline.rows] == [20, 0]
    assert timeline.rows[1]["votes"] == timeline.rows[0]["votes"]
    assert timeline.rows[1]["log_e"] == {"harm": 1.0, "non_inferiority": 0.0}
    assert "votes: fail; because" in [entry["text"] for entry in timeline.log]


def test_votes_on_another_release_are_not_ours() -> None:
    timeline = Timeline(100.0, NEW.digest)
    timeline.add(101.0, passed(20, judged(3, "fail", of=OLD)))
    assert timeline.rows[0]["votes"] == {}
    assert not any("fail" in entry["text"] for entry in timeline.log)
