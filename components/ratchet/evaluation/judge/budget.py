"""A budget of tokens and money that is never overspent: each request reserves its most, and settles what it used."""

import asyncio
from dataclasses import dataclass, field

from ratchet.config import Judge
from ratchet.evaluation.judge.providers import Usage


@dataclass
class Budget:
    """One for all requests of a run."""

    settings: Judge
    tokens: int = 0
    usd: float = 0.0
    num_requests: int = 0
    _reserved: list[Usage] = field(default_factory=list)
    _settled: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reserve(self, most: Usage) -> bool:
        """Whether there is room for a request that uses so much at most; waits while others may yet leave some."""
        async with self._settled:
            await self._settled.wait_for(lambda: self._has_room(most) or not self._reserved)
            if not self._has_room(most):
                return False
            self._reserved.append(most)
            return True

    async def settle(self, most: Usage, used: Usage) -> None:
        """The request has ended; `used` is `most` where nobody knows."""
        async with self._settled:
            self._reserved.remove(most)
            self.tokens += used.input_tokens + used.output_tokens
            self.usd += self._price(used)
            self.num_requests += 1
            self._settled.notify_all()

    def _has_room(self, most: Usage) -> bool:
        held = [*self._reserved, most]
        tokens = self.tokens + sum(one.input_tokens + one.output_tokens for one in held)
        usd = self.usd + sum(map(self._price, held))
        return tokens <= self.settings.budget_tokens and usd <= self.settings.budget_usd

    def _price(self, used: Usage) -> float:
        """In US dollars. Cached input is counted at full price, which errs on the safe side."""
        prices = (self.settings.usd_per_million_input, self.settings.usd_per_million_output)
        return (used.input_tokens * prices[0] + used.output_tokens * prices[1]) / 1e6
