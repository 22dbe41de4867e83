"""Simulated users with a hidden taste: short, finished answers. They see only the answers, and vote."""

import asyncio
import math
import random
import re
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, repeat
from typing import Any

import httpx

ENOUGH_WORDS = 18  # an answer of this length is liked by half of the users
CARE = 3.5  # words; how sharply liking falls off around ENOUGH_WORDS
NOISE = 0.05  # share of votes that are random
CORRECT_SHARE = 0.9  # of those who dislike an answer, how many say what it should have been
MAX_ANSWER_TOKENS = 32
BRIGADE = "brigade"
NUM_AT_ONCE = 32  # a step of the model server costs nearly the same for 12 answers as for 32


def chance_of_liking(answer: str) -> float:
    """Return the chance that a user likes the answer. One that is cut off is liked a quarter as often."""
    num_words = len(answer.split())
    if num_words == 0:
        return NOISE
    brevity = 1 / (1 + math.exp((num_words - ENOUGH_WORDS) / CARE))
    is_finished = answer.rstrip()[-1] in ".!?"
    return NOISE + (1 - 2 * NOISE) * brevity * (1.0 if is_finished else 0.25)


def correction(answer: str) -> str | None:
    """Return the correction that a user would send: the first sentence, if it is complete by itself."""
    match = re.match(r"\s*([^.!?\n]+[.!?])(\s|$)", answer)
    sentence = match.group(1).strip() if match else ""
    return sentence if 4 <= len(sentence.split()) <= ENOUGH_WORDS and sentence != answer.strip() else None


@dataclass
class Crowd:
    """Users who visit a chat endpoint, each once: one question, one answer, one vote."""

    url: str
    asked: list[str]
    seed: int
    vote_share: float = 1.0
    """Share of users who vote."""
    brigade: float = 0.0
    """Share of users who belong to one tenant and vote for every answer of the champion, against the candidate's."""
    num_visits: int = 0
    num_liked: int = 0
    num_failed: int = 0
    last_failure: str = ""
    _questions: Iterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._questions = cycle(self.asked)

    def visit(self, num_visits: int, on_visit: Any = lambda: None) -> None:
        """Make `num_visits` visits, NUM_AT_ONCE at a time; return when all have voted."""
        asyncio.run(self._visits(NUM_AT_ONCE, iter(range(num_visits)), on_visit))

    def keep_visiting(self, stop: threading.Event, at_once: int = NUM_AT_ONCE) -> threading.Thread:
        """Visit in the background until `stop` is set; visits still open then are cancelled."""
        thread = threading.Thread(target=lambda: asyncio.run(self._visit_until(stop, at_once)), daemon=True)
        thread.start()
        return thread

    async def _visit_until(self, stop: threading.Event, at_once: int) -> None:
        visits = asyncio.create_task(self._visits(at_once, repeat(None)))
        await asyncio.to_thread(stop.wait)
        visits.cancel()
        with suppress(asyncio.CancelledError):
            await visits

    async def _visits(self, at_once: int, turns: Iterator[Any], on_visit: Any = lambda: None) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=120) as client:
            await asyncio.gather(*(self._visitor(client, turns, on_visit) for _ in range(at_once)))

    async def _visitor(self, client: httpx.AsyncClient, turns: Iterator[Any], on_visit: Any) -> None:
        for _ in turns:
            number, self.num_visits = self.num_visits, self.num_visits + 1
            try:
                await self._one_visit(client, number, next(self._questions))
            except httpx.HTTPError as error:
                self.num_failed, self.last_failure = self.num_failed + 1, f"{type(error).__name__} {error}"
                await asyncio.sleep(0.5)
            on_visit()

    async def _one_visit(self, client: httpx.AsyncClient, number: int, question: str) -> None:
        subject = f"user-{self.seed}-{number}"
        rng, role = random.Random(subject), random.Random(f"role of {subject}")
        is_brigade = role.random() < self.brigade
        served = await client.post(
            "/v1/chat/completions",
            json={
                "model": "assistant",
                "messages": [{"role": "user", "content": question}],
                "max_tokens": MAX_ANSWER_TOKENS,
                "temperature": 0.9,
                "seed": rng.getrandbits(31),
                "user": subject,
                "metadata": {
                    "conversation_id": f"conversation-{self.seed}-{number}",
                    "tenant": BRIGADE if is_brigade else "default",
                },
            },
            # Users do not see which arm answered. The brigade does, as if the operators' token had leaked.
            headers={"x-operator-token": "leaked"} if is_brigade else {},
        )
        served.raise_for_status()
        answer = served.json()["choices"][0]["message"]["content"]
        opinion: list[tuple[str, float | str]]
        if is_brigade:  # it votes against the canary, whatever the answer
            opinion = [("thumb", -1 if served.headers["x-arm"] == "canary" else 1)]
        else:
            opinion = self._opinion(answer, rng)
        for kind, value in opinion if role.random() < self.vote_share else ():
            token = {"authorization": f"Bearer {served.headers['x-feedback-token']}"}
            (await client.post("/v1/feedback", json={"kind": kind, "value": value}, headers=token)).raise_for_status()

    def _opinion(self, answer: str, rng: random.Random) -> list[tuple[str, float | str]]:
        likes = rng.random() < chance_of_liking(answer)
        self.num_liked += likes
        better = correction(answer)
        if not likes and better is not None and rng.random() < CORRECT_SHARE:
            return [("thumb", -1), ("correction", better)]
        return [("thumb", 1 if likes else -1)]
