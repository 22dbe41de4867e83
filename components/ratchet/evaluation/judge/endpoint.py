"""A judge behind an HTTP endpoint: asked concurrently, retried with patience, paid within a budget, never twice.

Every verdict is kept in the lake by the content of its question, so that a run that was cut off goes on where it
stopped, and a run that is repeated costs nothing.
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
TEMPLATE_TOKENS = 200  # what a provider's chat template may add to what we send
NOTHING = Usage(input_tokens=0, output_tokens=0)
BUSY = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
Advance = Callable[[int], None]


class Busy(Exception):
    """Ask again: the endpoint is overloaded, or what came back was no reply.

    `wait_s` is what it asked for; `is_charged` says whether the try may cost money.
    """

    def __init__(self, words: str, *, wait_s: float = 0.0, is_charged: bool = False) -> None:
        super().__init__(words)
        self.wait_s, self.is_charged = wait_s, is_charged


@dataclass(frozen=True)
class JudgeReplies:
    """The verdicts, in the order of the questions, and their cost; `num_known` were found in the lake."""

    verdicts: list[PairVerdict]
    num_known: int
    budget: Budget


def ask_endpoint(questions: Sequence[Question], settings: Judge, store: Store, advance: Advance) -> JudgeReplies:
    """Ask every question. Raises UserError if the endpoint refuses, or stays silent through every try."""
    return asyncio.run(_ask_all(questions, settings, store, advance))


async def _ask_all(questions: Sequence[Question], settings: Judge, store: Store, advance: Advance) -> JudgeReplies:
    key = os.environ.get(KEY, "")
    provider = PROVIDERS[settings.style]
    async with httpx.AsyncClient(headers=dict(provider.headers(key)), timeout=settings.timeout_s) as client:
        slots = asyncio.Semaphore(settings.concurrency)
        pool = _RequestPool(settings, store, client, Budget(settings), slots, key, advance)
        names = [pool.name(question) for question in questions]
        asked = dict(zip(names, questions, strict=True))  # the same question twice is asked once
        found = await asyncio.gather(*(pool.verdict_on(name, question) for name, question in asked.items()))
    verdicts = dict(zip(asked, found, strict=True))
    advance(len(questions) - len(asked))
    return JudgeReplies([verdicts[name][0] for name in names], sum(is_known for _, is_known in found), pool.budget)


@dataclass(frozen=True)
class _RequestPool:
    settings: Judge
    store: Store
    client: httpx.AsyncClient
    budget: Budget
    slots: asyncio.Semaphore
    key: str
    advance: Advance

    def name(self, question: Question) -> str:
        """What is asked of whom, as a digest."""
        asked = {"conversation": question.conversation, "answers": question.answers, "instructions": INSTRUCTIONS}
        who = {"style": self.settings.style, "url": self.settings.url, "model": self.settings.model}
        return digest_json({**asked, **who, "max_tokens": MAX_REPLY_TOKENS})[:32]

    async def verdict_on(self, name: str, question: Question) -> tuple[PairVerdict, bool]:
        """The verdict, and whether it was known."""
        async with self.slots:
            uri = f"judgements/{name}.json"
            found = await asyncio.to_thread(self._known, uri)
            verdict = found or await self._ask(question, uri)
        self.advance(1)
        return verdict, found is not None

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
        """None where the budget has no room for it."""
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
                f"the judge at {self.settings.url} did not answer in {self.settings.tries} tries: {words}; what it "
                "said so far is kept, so run again when it is well, or set evaluate_adapter.judge.style: none"
            ) from None

    async def _pay_and_post(self, question: Question) -> Reply | None:
        most = _most(question)
        if not await self.budget.reserve(most):
            return None
        used = most  # where it breaks off half-way, nobody knows what was charged
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
            said = response.text[:200].replace(self.key, "…") if self.key else response.text[:200]
            raise UserError(f"the judge at {self.settings.url} answered {response.status_code}: {said}")
        try:
            return provider.read(response.json())
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            words = f"a reply of {len(response.content)} bytes that is not in {self.settings.style} style"
            raise Busy(words, is_charged=True) from None


def _most(question: Question) -> Usage:
    """A token is at least a byte."""
    sent = INSTRUCTIONS + question.conversation + question.answers
    return Usage(input_tokens=len(sent.encode()) + TEMPLATE_TOKENS, output_tokens=MAX_REPLY_TOKENS)


def _wait_s(state: RetryCallState) -> float:
    """At least what the endpoint asked for, and a random, doubling time, so that waiting requests do not march."""
    error = state.outcome and state.outcome.exception()
    backoff = wait_random_exponential(multiplier=0.5, max=LONGEST_WAIT_S)(state)
    return backoff + (error.wait_s if isinstance(error, Busy) else 0.0)


def _asked_to_wait_s(response: httpx.Response) -> float:
    """Retry-After as seconds or as a date. Raises UserError if that is longer than a run should wait."""
    value: Any = response.headers.get("retry-after", "0")
    try:
        wait_s = float(value)
    except ValueError:
        with suppress(ValueError):
            value = parsedate_to_datetime(value).timestamp() - time.time()
        wait_s = float(value) if isinstance(value, float) else 0.0
    if wait_s > LONGEST_WAIT_S:
        raise UserError(
            f"the judge asks to wait for {wait_s:.0f} s; what it said so far is kept, so run again after that"
        )
    return max(0.0, wait_s)
