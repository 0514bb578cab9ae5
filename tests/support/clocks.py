"""Clocks of tests: time passes when a test says so."""

from __future__ import annotations

import asyncio


class Clock:
    """Stands still until it is moved, by the test or by a sleep that is given to the code.

    Attributes:
        now: seconds; a test sets it.
        slept: the seconds of each sleep so far.
    """

    def __init__(self, now: float) -> None:
        self.now = now
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        """Pass that time at once."""
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)
