"""Waiting at the simulator's speed."""

from __future__ import annotations

import asyncio


class Pace:
    """How fast life goes; made in the running loop.

    Args:
        speed: how many times faster than life.
    """

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self._stopping = asyncio.get_running_loop().create_future()

    async def sleep(self, seconds: float, *, until: asyncio.Future[None] | None = None) -> None:
        """Wait for some seconds of life, or until the simulator stops, or a future is done."""
        awaited = [self._stopping, *([until] if until else [])]
        await asyncio.wait(
            awaited, timeout=seconds / self.speed, return_when=asyncio.FIRST_COMPLETED
        )

    def stop(self) -> None:
        """End every wait."""
        self._stopping.set_result(None)
