"""Ask a judge at an HTTP endpoint: concurrently, with retries, within a budget, each question once.

Every verdict is cached in the lake under the digest of its question, so an interrupted run resumes where it stopped
and a repeated run costs nothing.
"""

import asyncio
import json
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, cast

import httpx
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, stop_after_attempt
from tenacity.wait import wait_random_exponential

from ratchet.config import Judge
from ratchet.digest import canonical_json, digest_json
from ratchet.errors import UserError
from ratchet.evaluation.judge.budget import Budget
from ratchet.evaluation.judge.prompts import INSTRUCTIONS, PairVerdict, Question, read_verdict
from ratchet.evaluation.judge.providers import MAX_REPLY_TOKENS, PROVIDERS, Reply, Usage
from ratchet.store import Store

KEY = "RATCHET_JUDGE_KEY"
LONGEST_WAIT_S = 120.0
TEMPLATE_TOKENS = 200  # allowance for the provider's chat template
NOTHING = Usage(input_tokens=0, output_tokens=0)
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
Advance = Callable[[int], None]


class Busy(Exception):
    """The request should be retried: the endpoint is overloaded, or its response was unreadable.

    `wait_s`: the wait that the endpoint asked for. `is_charged`: whether the attempt may cost money.
    """

    def __init__(self, words: str, *, wait_s: float = 0.0, is_charged: bool = False) -> None:
        super().__init__(words)
        self.wait_s, self.is_charged = wait_s, is_charged


@dataclass(frozen=True)
class JudgeReplies:
    """The verdicts in the order of the questions, and their cost; `num_known` of them were cached."""

    verdicts: list[PairVerdict]
    num_known: int
    budget: Budget


def ask_endpoint(questions: Sequence[Question], settings: Judge, store: Store, advance: Advance) -> JudgeReplies:
    """Ask every question. Raises UserError if the endpoint refuses, or fails in every attempt."""
    return asyncio.run(_ask_all(questions, settings, store, advance))


async def _ask_all(questions: Sequence[Question], settings: Judge, store: Store, advance: Advance) -> JudgeReplies:
    key = os.environ.get(KEY, "")
    provider = PROVIDERS[settings.style]
    async with httpx.AsyncClient(headers=dict(provider.headers(key)), timeout=settings.timeout_s) as client:
        slots = asyncio.Semaphore(settings.concurrency)
        pool = _RequestPool(settings, store, client, Budget(settings), slots, key, advance)
        names = [pool.name(question) for question in questions]
        asked = dict(zip(names, questions, strict=True))  # the same question twice is asked once
        answered = await asyncio.gather(*(pool.verdict_on(name, question) for name, question in asked.items()))
    verdicts = dict(zip(asked, answered, strict=True))
    advance(len(questions) - len(asked))
    return JudgeReplies([verdicts[name][0] for name in names], sum(is_known for _, is_known in answered), pool.budget)


@dataclass(frozen=True)
class _RequestPool:
    """One run's requests: `slots` bounds their concurrency, `budget` their cost."""

    settings: Judge
    store: Store
    client: httpx.AsyncClient
    budget: Budget
    slots: asyncio.Semaphore
    key: str
    advance: Advance

    def name(self, question: Question) -> str:
        """Return the digest of the question, the judge and its instructions: the key of the cached verdict."""
        asked = {"conversation": question.conversation, "answers": question.answers, "instructions": INSTRUCTIONS}
        who = {"style": self.settings.style, "url": self.settings.url, "model": self.settings.model}
        return digest_json({**asked, **who, "max_tokens": MAX_REPLY_TOKENS})[:32]

    async def verdict_on(self, name: str, question: Question) -> tuple[PairVerdict, bool]:
        """Return the verdict, and whether it was cached."""
        async with self.slots:
            uri = f"judgements/{name}.json"
            known = await asyncio.to_thread(self._known, uri)
            verdict = known or await self._ask(question, uri)
        self.advance(1)
        return verdict, known is not None

    def _known(self, uri: str) -> PairVerdict | None:
        if not self.store.exists(uri):
            return None
        return cast("PairVerdict", json.loads(self.store.read(uri))["verdict"])

    async def _ask(self, question: Question, uri: str) -> PairVerdict:
        reply = await self._reply(question)
        if reply is None:
            return "over_budget"
        verdict = read_verdict(reply.text)
        record = {
            "verdict": verdict,
            "model": self.settings.model,
            "usage": reply.usage and reply.usage.model_dump(),
        }
        await asyncio.to_thread(self.store.create_if_absent, uri, canonical_json(record))
        return verdict

    async def _reply(self, question: Question) -> Reply | None:
        """Return the reply, after retries; None if the budget has no room for it."""
        retrying = AsyncRetrying(
            stop=stop_after_attempt(self.settings.tries),
            wait=_wait_s,
            retry=retry_if_exception_type((Busy, httpx.TransportError)),
            reraise=True,
        )
        try:
            return await retrying(self._pay_and_post, question)
        except (Busy, httpx.TransportError) as error:
            words = str(error) or type(error).__name__
            raise UserError(
                f"the judge at {self.settings.url} did not answer in {self.settings.tries} tries: {words}; its "
                "verdicts so far are kept, so run again when it recovers, or set evaluate_adapter.judge.style: none"
            ) from None

    async def _pay_and_post(self, question: Question) -> Reply | None:
        text = INSTRUCTIONS + question.conversation + question.answers
        # A token is at least one byte, so this is the most that the question can use.
        most = Usage(input_tokens=len(text.encode()) + TEMPLATE_TOKENS, output_tokens=MAX_REPLY_TOKENS)
        if not await self.budget.reserve(most):
            return None
        used = most  # if the connection breaks half-way, the charge is unknown
        try:
            reply = await self._post(question)
            used = reply.usage or most
        except (Busy, httpx.ConnectError) as error:
            used = most if isinstance(error, Busy) and error.is_charged else NOTHING
            raise
        finally:
            await self.budget.settle(most, used)
        return reply

    async def _post(self, question: Question) -> Reply:
        provider = PROVIDERS[self.settings.style]
        url = self.settings.url.rstrip("/") + provider.path
        response = await self.client.post(url, json=provider.body(self.settings.model, question))
        if response.status_code in BUSY:
            raise Busy(f"status {response.status_code}", wait_s=_asked_to_wait_s(response))
        if response.status_code in (401, 403):  # the body may quote the key
            raise UserError(
                f"the judge at {self.settings.url} refused the key (status {response.status_code}); set {KEY}"
            )
        if response.status_code != 200:
            body = response.text[:200].replace(self.key, "…") if self.key else response.text[:200]
            raise UserError(f"the judge at {self.settings.url} answered {response.status_code}: {body}")
        try:
            return provider.read(response.json())
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            words = f"a reply of {len(response.content)} bytes that is not in {self.settings.style} style"
            raise Busy(words, is_charged=True) from None


def _wait_s(state: RetryCallState) -> float:
    """Return the wait that the endpoint asked for plus exponential backoff with jitter, so retries do not align."""
    error = state.outcome and state.outcome.exception()
    backoff = wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S)(state)
    return backoff + (error.wait_s if isinstance(error, Busy) else 0.0)


def _asked_to_wait_s(response: httpx.Response) -> float:
    """Parse Retry-After, in seconds or as a date. Raises UserError if it exceeds LONGEST_WAIT_S."""
    value: Any = response.headers.get("retry-after", "0")
    try:
        wait_s = float(value)
    except ValueError:
        with suppress(ValueError):
            value = parsedate_to_datetime(value).timestamp() - time.time()
        wait_s = float(value) if isinstance(value, float) else 0.0
    if wait_s > LONGEST_WAIT_S:
        raise UserError(
            f"the judge asks to wait for {wait_s:.0f} s; its verdicts so far are kept, so run again after that"
        )
    return max(0.0, wait_s)
