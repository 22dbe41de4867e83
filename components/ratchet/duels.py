"""Hold duels: answer a sampled share of a canary's prompts with the other arm too, in the shadow, and judge both.

Users see nothing of it; only prompts with consent are used, since the judge may be another company's. The judge is the
one of `evaluate_adapter`, calibrated on votes by the offline gate; each pair is judged in both orders, and cached.
Rounds go to the lake, where the gate reads them. Without a calibrated judge, or past the budget, no duel is held, and
votes are the evidence.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any

import httpx

from ratchet.adapter_ref import AdapterRef
from ratchet.config import Config, Judge
from ratchet.digest import digest_json
from ratchet.errors import Conflict, UserError
from ratchet.evaluation.judge.endpoint import ask_endpoint
from ratchet.evaluation.judge.pairwise import AnswerPair, no_verdict_reasons, outcomes, questions
from ratchet.events import Interaction, Message
from ratchet.release.gate.duel_log import DuelLog, DuelRound, is_judged
from ratchet.release.gate.duels import Duel
from ratchet.release.gate.event_tail import EventTail
from ratchet.release.gate.traffic_log import TrafficLog
from ratchet.release.ledger import Ledger, LedgerRecord, open_request
from ratchet.store import Store

log = logging.getLogger("ratchet.duels")
ANSWER_TIMEOUT_S = 120.0
RETRY_S = 30.0  # after a failure
ROUND_PROMPTS = 16  # judged together, so that a judge's slowness does not hold up many answers


def is_sampled(interaction_id: str, share: float) -> bool:
    """Return whether a prompt is in the sample; its id decides, so that both arms' are drawn alike."""
    return int(digest_json(interaction_id)[:8], 16) < share * 16**8


SAMPLING = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "seed", "stop", "presence_penalty",
    "frequency_penalty",
)  # fmt: skip


class Referee:
    """Holds the duels of one release."""

    def __init__(self, config: Config, store: Store, request: LedgerRecord, pool: httpx.Client) -> None:
        self.config, self.store, self.request, self.pool = config, store, request, pool
        self.log = DuelLog(store, request.seq)
        self._prompts: list[Interaction] = []
        self._events = EventTail(store, since=request.at, keep=self._keep)

    def hold(self, now: float) -> int:
        """Hold the duels that are due at `now` (Unix seconds); return how many prompts were taken."""
        self.log.read()
        if not TrafficLog(self.store, self.request.seq).num_steps:
            return 0  # the canary has no traffic yet
        self._events.read(now)
        self._events.take()
        known = {duel.interaction_id for duel in self.log.duels}
        self._prompts = [prompt for prompt in self._prompts if prompt.interaction_id not in known]
        room = max(0, self.config.gate.duels.max_duels - len(known))
        asked = self._prompts[: min(room, ROUND_PROMPTS)]
        if asked:
            try:
                self.log.append(self._round(asked, now))
            except Conflict:  # another process held this round
                self.log.read()
            self._prompts = self._prompts[len(asked) :]  # not before: a judge that is away is asked again
        return len(asked)

    def _keep(self, served: Interaction) -> None:
        arms = {self.request.adapter.digest, self._baseline.digest}
        is_whole = served.finish_reason == "stop" and served.response and not (served.tool_calls or served.refusal)
        is_text = (
            not served.tools and "response_format" not in served.params and not any(map(_has_parts, served.messages))
        )
        is_usable = is_whole and is_text and served.task is None and served.consent_training == "granted"
        share = self.config.gate.duels.share
        if is_usable and served.adapter_digest in arms and is_sampled(served.interaction_id, share):
            self._prompts.append(served)

    @property
    def _baseline(self) -> AdapterRef:
        return self.request.baseline or AdapterRef()

    def _round(self, asked: Sequence[Interaction], now: float) -> DuelRound:
        pairs, prompts, failed = [], [], 0
        for served in asked:
            is_candidate = served.adapter_digest == self.request.adapter.digest
            other = self._answer(served, self._baseline if is_candidate else self.request.adapter)
            if other is None:
                failed += 1
                continue
            ours, theirs = (served.response, other) if is_candidate else (other, served.response)
            messages = [message.model_dump(include={"role", "content"}) for message in served.messages]
            pairs.append(AnswerPair(messages, ours, theirs, served.conversation_id))
            prompts.append(served)
        replies = ask_endpoint(questions(pairs), self._judge(), self.store, lambda _: None)
        judged = outcomes(pairs, replies.verdicts)
        duels = tuple(
            Duel(interaction_id=served.interaction_id, judged_at=now, score=outcome.score, tenant=served.tenant)
            for served, outcome in zip(prompts, judged, strict=True)
            if outcome.score is not None
        )
        without = no_verdict_reasons(judged) | ({"no_answer": failed} if failed else {})
        return DuelRound(duels=duels, without_verdict=without, tokens=replies.budget.tokens, usd=replies.budget.usd)

    def _judge(self) -> Judge:
        """Return the judge with what is left of the duels' budget."""
        duels = self.config.gate.duels
        spent_tokens = sum(held.tokens for held in self.log.rounds)
        spent_usd = sum(held.usd for held in self.log.rounds)
        left = {
            "budget_tokens": max(0, duels.budget_tokens - spent_tokens),
            "budget_usd": max(0.0, duels.budget_usd - spent_usd),
        }
        return self.config.evaluate_adapter.judge.model_copy(update=left)

    def _answer(self, served: Interaction, adapter: AdapterRef) -> str | None:
        """Return the adapter's whole answer to the prompt, drawn as the served one was; None if there is none."""
        body: dict[str, Any] = {
            **{name: served.params[name] for name in SAMPLING if name in served.params},
            "model": served.base_model if adapter.is_base else str(adapter),
            "messages": [message.model_dump(include={"role", "content"}) for message in served.messages],
        }
        try:
            response = self.pool.post("/v1/chat/completions", json=body, timeout=ANSWER_TIMEOUT_S)
            response.raise_for_status()
            choice = response.json()["choices"][0]
        except (httpx.HTTPError, LookupError, ValueError) as error:
            log.warning("no shadow answer of %s: %s", adapter, type(error).__name__)
            return None
        answer: str | None = choice["message"]["content"]
        return answer if choice.get("finish_reason") == "stop" else None


def hold_duels(config: Config, store: Store, pool_url: str) -> None:
    """Hold duels of whichever release is open, until a signal ends the process."""
    ledger, referee, last_error = Ledger(store), None, ""
    with httpx.Client(base_url=pool_url) as pool:
        while True:
            taken = 0
            try:
                request = open_request(ledger.records())
                if request is None or not is_judged(config, request):
                    referee = None
                elif referee is None or referee.request != request:
                    log.info("holding duels of %s", request.adapter)
                    referee = Referee(config, store, request, pool)
                taken = referee.hold(time.time()) if referee else 0
                last_error = ""
            except Exception as error:  # the lake or the judge is away: the gate goes on without new duels
                if str(error) != last_error:
                    log.warning("no duels: %s", error, exc_info=not isinstance(error, (UserError, OSError)))
                last_error = str(error)
            if taken < ROUND_PROMPTS:
                time.sleep(config.gate.refresh_s if not last_error else RETRY_S)


def _has_parts(message: Message) -> bool:
    return "parts" in (message.model_extra or {})
