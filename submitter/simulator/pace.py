"""Waiting at the simulator's speed."""

from __future__ import annotations

import asyncio
import contextlib


class Pace:
    """How fast life goes.

    Args:
        speed: how many times faster than life.
    """

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._stopping = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait for some seconds of life, or until the simulator stops."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds / self.speed)

    def stop(self) -> None:
        """End every wait."""
        self._stopping.set()
