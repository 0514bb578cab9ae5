"""Takes a place for each submit: so many a minute, so many tasks at once, for all processes.

The ledger counts. So a restarted process does not begin anew, and a place is free when a task has
ended, not when a timer says so.
"""

from __future__ import annotations

import asyncio
import random as _random
import time
from collections.abc import Callable

from submitter.ledger.base import Full, Intended, Intent, Ledger, Limits
from submitter.schedule import Schedule


class Flow:
    """The window of one account.

    Args:
        ledger: open.
        limits: of the account.
        schedule: of the waits after a 429 that names none.
        clock: Unix seconds.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        schedule: Schedule,
        *,
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._schedule = schedule
        self._clock = clock
        self._random = random
        self._turn = asyncio.Lock()
        self._refusals = 0

    async def place(self, make: Callable[[float], Intent]) -> Intended:
        """Write an intent as soon as there is room for it; first come, first served.

        Args:
            make: the intent for a time (Unix seconds).

        Raises:
            LedgerUnavailable: it cannot be written.
        """
        async with self._turn:
            woken = asyncio.Event()
            end: Callable[[], None] | None = None
            try:
                while True:
                    woken.clear()
                    now = self._clock()
                    answer = await self._ledger.intend(make(now), self._limits, now)
                    if isinstance(answer, Intended):
                        return answer
                    if end is None:
                        # Looked again after it: what changed in between woke nobody.
                        end = self._ledger.subscribe(woken.set)
                        continue
                    await self._wait(answer, woken)
            finally:
                if end is not None:
                    end()

    async def refused(self, retry_after: float | None) -> None:
        """The API answered 429: nobody submits for a while."""
        wait = retry_after
        if wait is None:
            wait = self._schedule.pause(self._refusals, self._random)
        self._refusals += 1
        await self._ledger.pause(self._clock() + wait)

    def accepted(self) -> None:
        """The API took a task: the next 429 is a first one again."""
        self._refusals = 0

    async def _wait(self, full: Full, woken: asyncio.Event) -> None:
        left = None if full.until is None else max(full.until - self._clock(), 0.001)
        try:
            await asyncio.wait_for(woken.wait(), left)
        except TimeoutError:
            return
