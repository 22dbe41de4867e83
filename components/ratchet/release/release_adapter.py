"""Release an adapter: request it in the ledger, name it in Git, and wait until it is champion or rolled back.

From Git on, Argo CD and Flagger do the work and the gate judges it; this step reconciles meanwhile. Killing it changes
nothing: the request stays open, and a re-run resumes it.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any

from ratchet.adapter_files import check_servable
from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config
from ratchet.digest import canonical_json, digest_bytes
from ratchet.errors import UserError, without_credentials
from ratchet.manifest import Artifact, Manifest, StepOutput
from ratchet.needs import (
    ENVIRONMENT_SECRET,
    GATE,
    GATE_SECRET,
    GIT,
    GIT_SECRET,
    HOUR_S,
    MLFLOW,
    RELEASE_ACCOUNT,
    S3,
    Needs,
)
from ratchet.progress import show_progress
from ratchet.registry.aliases import champion
from ratchet.release.approval import check_approved, read_registered
from ratchet.release.gate.design import alpha_of_attempt
from ratchet.release.ledger import (
    Ledger,
    LedgerEntry,
    LedgerRecord,
    approval,
    closing,
    open_request,
    quarantined,
    request,
)
from ratchet.release.reconciler.actions import first_values, run_id
from ratchet.release.reconciler.gitops import GitUnavailable
from ratchet.release.reconciler.kubernetes import ClusterUnavailable
from ratchet.release.reconciler.reconcile import reconcile
from ratchet.release.reconciler.targets import Targets, open_targets
from ratchet.release.timeline import Timeline
from ratchet.step import Inputs, Step
from ratchet.store import Store

WHO = "release_adapter"
NO_TARGET = (
    "release_adapter.git_url is not set, so there is nothing to release to; set it to the repository that Argo CD "
    "follows, and cluster_url and gate_url with it"
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """The adapter to release, and its offline verdict."""

    adapter: AdapterRef
    verdict: str
    is_forced: bool
    judge: dict[str, Any]
    """The judge of the offline gate and its agreement with people, if it had one: `ratchet.release.gate.duel_log`."""


@dataclass(frozen=True, kw_only=True)
class ReleaseResult:
    """How the release ended. `asked` is the request in the ledger, if there was one."""

    outcome: str
    why: str
    asked: LedgerRecord | None = None


def run(config: Config, inputs: Inputs, store: Store) -> StepOutput:
    registered = read_registered(store, inputs["register_adapter"].outputs["version"].uri)
    candidate = Candidate(
        adapter=registered.adapter,
        verdict=registered.verdict,
        is_forced=config.release_adapter.force,
        judge=_judge_facts(inputs.get("evaluate_adapter")),
    )
    timeline = Timeline(time.time(), candidate.adapter.digest)
    result = _release(config, store, candidate, timeline)
    return _publish(config, store, candidate, result, timeline)


def _judge_facts(evaluated: Manifest | None) -> dict[str, Any]:
    facts = evaluated.facts.get("judge") if evaluated else None
    if not facts:
        return {}
    return {"style": facts["style"], "model": facts["model"], "kappa_low": facts["calibration"]["kappa_low"]}


def _release(config: Config, store: Store, candidate: Candidate, timeline: Timeline) -> ReleaseResult:
    settings = config.release_adapter
    if candidate.verdict != "pass" and not candidate.is_forced:
        why = f"the offline verdict is {candidate.verdict}; release_adapter.force releases all the same, on the record"
        _record_refusal(Ledger(store), candidate, why)
        return ReleaseResult(outcome="refused", why=why)
    if settings.git_url is None:
        return ReleaseResult(outcome="no_target", why=NO_TARGET)
    check_servable(store.local(candidate.adapter.uri.removeprefix(f"{store.root}/")))
    with open_targets(config, store) as targets:
        session = _ReleaseSession(targets, candidate, timeline, needs_person=settings.approval == "person")
        return session.until_closed(settings.timeout_s, settings.poll_s)


class _ReleaseSession:
    """Opens the release, then reconciles until the ledger closes it."""

    def __init__(self, targets: Targets, candidate: Candidate, timeline: Timeline, *, needs_person: bool) -> None:
        self.targets, self.candidate, self.timeline = targets, candidate, timeline
        self.needs_person = needs_person
        self.asked: LedgerRecord | None = None

    def until_closed(self, timeout_s: float, poll_s: float) -> ReleaseResult:
        deadline = time.monotonic() + timeout_s
        with show_progress(str(self.candidate.adapter), 100) as progress:
            while time.monotonic() < deadline:
                if self.asked is None and (ended := self._ask_unless_away(time.time())):
                    return ended
                done = reconcile(self.targets, now := time.time())
                self.timeline.add(now, done)
                if done.snapshot is not None:
                    votes = done.state.get("votes", {}).get("canary", {}).get("n", 0)
                    words = f"{self.candidate.adapter}: {done.snapshot.phase}, {votes} canary votes"
                    progress.update(done.snapshot.weight, words)
                if self.asked and (end := closing(self.targets.ledger.records(), self.asked)):
                    return ReleaseResult(outcome=end.event, why=end.why, asked=self.asked)
                time.sleep(poll_s)
        # No manifest: a published result would stop the next run from resuming the release.
        raise UserError(
            f"release of {self.candidate.adapter} has no end within release_adapter.timeout_s = {timeout_s:g} s; "
            "it stays open in the ledger, the reconciler goes on, and running this step again waits on"
        )

    def _ask_unless_away(self, now: float) -> ReleaseResult | None:
        """Open the release or resume it; while Git or MLflow is away, leave that to the next pass."""
        try:
            return self._ask(now)
        except GitUnavailable as away:
            self.timeline.note(now, "away", str(away), "{}")
        except UserError:
            raise
        except Exception as error:  # MLflow has many
            self.timeline.note(now, "away", without_credentials(f"{type(error).__name__}: {error}"), "{}")
        return None

    def _ask(self, now: float) -> ReleaseResult | None:
        """Open the release or resume it; return a result if it has ended before."""
        records = self.targets.ledger.records()
        opened = open_request(records)
        if opened is None:
            if ended := self._ended_before(records):
                return ended
            self._check(records)  # again at the request: before it, the cluster may be away for long
            opened = self._request(now)
        if opened is not None and opened.adapter.digest == self.candidate.adapter.digest:
            self._name_in_git(opened, now)
        elif opened is not None:
            self.timeline.note(now, "queue", str(opened.adapter), "the release of {} is under way: waiting for its end")
        return None

    def _request(self, now: float) -> LedgerRecord | None:
        """Request the release; None while the cluster is away or another release was first."""
        try:
            snapshot = self.targets.cluster.look()
        except ClusterUnavailable as away:
            self.timeline.note(now, "away", str(away), "{}")
            return None
        entry = LedgerEntry(
            event="requested",
            at=now,
            who=WHO,
            adapter=self.candidate.adapter,
            baseline=snapshot.primary,
            verdict=self.candidate.verdict,
            forced=self.candidate.verdict != "pass",
            applied_spec=snapshot.last_applied_spec,
            evidence={"judge": self.candidate.judge} if self.candidate.judge else {},
            condition_at=snapshot.condition_at,
        )
        return request(self.targets.ledger, entry, self._check)

    def _check(self, records: Sequence[LedgerRecord]) -> None:
        if self.needs_person:
            check_approved(records, self.candidate.adapter, self.candidate.verdict, time.time())

    def _name_in_git(self, opened: LedgerRecord, now: float) -> None:
        """Name the adapter in Git once per request, also if the step runs again or the release was rolled back."""
        run = run_id(self.targets.cluster.canary, opened)
        self.timeline.start = min(self.timeline.start, opened.at)
        commit = self.targets.values.name_once(first_values(opened), f"Release adapter {opened.adapter}", run)
        if commit.is_new:
            self.timeline.add_line(now, f"Git: values name {opened.adapter} (commit {commit.sha[:10]})")
        self.asked = opened

    def _ended_before(self, records: Sequence[LedgerRecord]) -> ReleaseResult | None:
        digest = self.candidate.adapter.digest
        ours = [record for record in records if record.adapter.digest == digest]
        asked = next((record for record in reversed(ours) if record.event == "requested"), None)
        best = champion(self.targets.registry, self.targets.model)
        if best is not None and best.tags.get("adapter_digest") == digest:
            return ReleaseResult(outcome="promoted", why="the adapter is champion already", asked=asked)
        if digest in quarantined(records):
            return ReleaseResult(outcome="rolled_back", why=ours[-1].why, asked=asked)
        return None


def _record_refusal(ledger: Ledger, candidate: Candidate, why: str) -> None:
    def decide(records: Sequence[LedgerRecord]) -> LedgerEntry | None:
        digest = candidate.adapter.digest
        is_recorded = any(record.event == "refused" and record.adapter.digest == digest for record in records)
        if is_recorded and approval(records, digest) is None:  # a refusal uses a standing yes up
            return None
        return LedgerEntry(
            event="refused", at=time.time(), who=WHO, adapter=candidate.adapter, verdict=candidate.verdict, why=why
        )

    ledger.append(decide)


def _publish(
    config: Config, store: Store, candidate: Candidate, ended: ReleaseResult, timeline: Timeline
) -> StepOutput:
    adapter, asked = candidate.adapter, ended.asked
    baseline = asked.baseline.digest if asked and asked.baseline else None
    attempt = asked.attempt if asked else 0
    result = {
        "outcome": ended.outcome,
        "name": adapter.name,
        "version": adapter.version,
        "digest": adapter.digest,
        "baseline_digest": baseline,
        "attempt": attempt,
        "verdict": candidate.verdict,
        "forced": candidate.is_forced and candidate.verdict != "pass",
    }
    data = canonical_json(result)
    uri = f"releases/{digest_bytes(data)}/release.json"
    store.create_if_absent(uri, data)
    facts = {
        "outcome": ended.outcome,
        "why": ended.why,
        "version": adapter.version,
        "digest": adapter.digest,
        "baseline_digest": baseline,
        "bound": -log(alpha_of_attempt(config.gate.alpha, max(1, attempt))),
        "timeline": timeline.rows,
        "log": timeline.log,
    }
    return StepOutput(outputs={"release": Artifact(uri=uri, digest=digest_bytes(data))}, facts=facts)


STEP = Step(
    name="release_adapter",
    run=run,
    inputs=("train_adapter", "evaluate_adapter", "register_adapter"),
    needs=Needs(
        cpu="500m",
        # Longer than release_adapter.timeout_s of the profile `gpu`, 26 h: the step gives up first, with a message.
        timeout_s=28 * HOUR_S,
        secrets={ENVIRONMENT_SECRET: (*S3, *MLFLOW), GIT_SECRET: GIT, GATE_SECRET: GATE},
        service_account=RELEASE_ACCOUNT,
    ),
)
