"""Hard caps on what a run may spend: calls, tokens, money.

A call is counted with the most it can cost until its answer tells what it did cost, so one command
never passes a cap. An answer out of the journal counts as what was paid for it, once it is met: a
run that is killed and started again has little more than one budget.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from feldspar.config import BudgetConfig, TeacherConfig


class BudgetSpent(Exception):
    """The next call might pass a cap: `max_calls = 100`. Nothing was asked."""

    def __init__(self, cap: str) -> None:
        super().__init__(cap)
        self.cap = cap


class Spent(NamedTuple):
    """What answers cost; `cost` in the currency of the recipe's prices."""

    calls: int = 0
    tokens: int = 0
    cost: float = 0.0

    def plus(self, other: Spent) -> Spent:
        return Spent(self.calls + other.calls, self.tokens + other.tokens, self.cost + other.cost)

    def minus(self, other: Spent) -> Spent:
        return self.plus(Spent(-other.calls, -other.tokens, -other.cost))


class Budget:
    """What teacher and judge may spend together."""

    def __init__(self, config: BudgetConfig) -> None:
        self.spent = Spent()
        self.reached = ""
        """The cap that ended the asking; empty before."""
        self._config = config
        self._reserved = Spent()
        self._waiting: list[asyncio.Future[None]] = []

    async def reserve(self, most: Spent) -> None:
        """Set aside what a call may cost; waits while calls in flight may turn out cheaper.

        Raises BudgetSpent when it would pass a cap all the same.
        """
        while not self.reached:
            cap = self._passed(self.spent.plus(self._reserved).plus(most))
            if not cap:
                self._reserved = self._reserved.plus(most)
                return
            if not self._reserved.calls:
                self.reached = cap
                self._wake()
                break
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(turn)
            await turn
        raise BudgetSpent(self.reached)

    def settle(self, most: Spent, paid: Spent) -> None:
        """Give back what was set aside, and count what was paid."""
        self._reserved = self._reserved.minus(most)
        self.spent = self.spent.plus(paid)
        self._wake()

    def _passed(self, spent: Spent) -> str:
        caps = self._config
        if caps.max_calls is not None and spent.calls > caps.max_calls:
            return f"max_calls = {caps.max_calls}"
        if caps.max_tokens is not None and spent.tokens > caps.max_tokens:
            return f"max_tokens = {caps.max_tokens}"
        if caps.max_cost is not None and spent.cost > caps.max_cost:
            return f"max_cost = {caps.max_cost:g}"
        return ""

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, []
        for turn in waiting:
            if not turn.done():
                turn.set_result(None)


def cost_of(prompt_tokens: int, completion_tokens: int, config: TeacherConfig) -> Spent:
    """One call with so many tokens, at the recipe's prices."""
    cost = prompt_tokens * config.prompt_price + completion_tokens * config.completion_price
    return Spent(1, prompt_tokens + completion_tokens, cost / 1e6)
