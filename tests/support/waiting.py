"""Waiting for a condition, with a time limit around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

TIMEOUT_S = 60.0
"""Only a test that fails waits as long."""


async def until(
    condition: Callable[[], object] | Callable[[], Awaitable[object]], seconds: float = TIMEOUT_S
) -> None:
    """Ask until the condition, or what it awaits, is true.

    Raises:
        TimeoutError: it is not true within that time.
    """
    pause = 0.001
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if isinstance(found, Awaitable) else found:
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.02)
