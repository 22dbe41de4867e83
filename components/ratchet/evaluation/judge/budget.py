"""A budget of tokens and money that is never overspent: each request reserves its maximum and settles its usage."""

import asyncio
from dataclasses import dataclass, field

from ratchet.config import Judge
from ratchet.evaluation.judge.providers import Usage


@dataclass
class Budget:
    """The budget that all requests of a run share."""

    settings: Judge
    tokens: int = 0
    usd: float = 0.0
    num_requests: int = 0
    _reserved: list[Usage] = field(default_factory=list)
    _settled: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reserve(self, most: Usage) -> bool:
        """Reserve `most` for a request; return whether there is room. Waits while open requests may free some."""
        async with self._settled:
            await self._settled.wait_for(lambda: self._has_room(most) or not self._reserved)
            if not self._has_room(most):
                return False
            self._reserved.append(most)
            return True

    async def settle(self, most: Usage, used: Usage) -> None:
        """Replace a reservation by the usage; pass `most` if the usage is unknown."""
        async with self._settled:
            self._reserved.remove(most)
            self.tokens += used.input_tokens + used.output_tokens
            self.usd += self._price(used)
            self.num_requests += 1
            self._settled.notify_all()

    def _has_room(self, most: Usage) -> bool:
        held = [*self._reserved, most]
        tokens = self.tokens + sum(usage.input_tokens + usage.output_tokens for usage in held)
        usd = self.usd + sum(map(self._price, held))
        return tokens <= self.settings.budget_tokens and usd <= self.settings.budget_usd

    def _price(self, used: Usage) -> float:
        """Return the price in US dollars. Cached input counts at full price, which errs on the safe side."""
        prices = (self.settings.usd_per_million_input, self.settings.usd_per_million_output)
        return (used.input_tokens * prices[0] + used.output_tokens * prices[1]) / 1e6
