"""All rows wait together while the API is away, and none of them gives up."""

from __future__ import annotations

import asyncio
import contextlib
import random as _random
from collections.abc import Callable

from submitter.schedule import Schedule


class Patience:
    """Growing waits, one for all.

    Args:
        schedule: of the waits.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(self, schedule: Schedule, *, random: Callable[[], float] = _random.random) -> None:
        self._schedule = schedule
        self._random = random
        self._failures = 0
        self._until = 0.0
        self.trouble: str | None = None
        """What is wrong, until something goes well."""

    async def turn(self, given_up: asyncio.Event) -> int:
        """Wait until it is time to try, or given up; returns what `failed` wants to be told."""
        now = asyncio.get_running_loop().time
        left = self._until - now()
        while left > 0 and not given_up.is_set():
            with contextlib.suppress(TimeoutError):
                # Not all in the same moment.
                wait = left + self._random() * self._schedule.soon
                await asyncio.wait_for(given_up.wait(), wait)
            left = self._until - now()
        return self._failures

    def failed(self, turn: int, trouble: str) -> None:
        """A try failed; of those that began together, one counts."""
        self.trouble = trouble
        if turn == self._failures:
            wait = self._schedule.pause(self._failures, self._random)
            self._until = asyncio.get_running_loop().time() + wait
            self._failures += 1

    def passed(self) -> None:
        """A try went well."""
        self._failures = 0
        self._until = 0.0
        self.trouble = None
