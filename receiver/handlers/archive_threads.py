"""Work that blocks, in threads of their own, which nobody can cancel."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def in_thread(work: Callable[[], T]) -> T:
    """Do it, and see it end also where the task is cancelled meanwhile."""
    return await ended(started(work))


def started(work: Callable[[], T]) -> asyncio.Future[T]:
    """Begin it; `ended` gives what it came to."""
    return asyncio.get_running_loop().run_in_executor(None, work)


async def ended(job: asyncio.Future[T]) -> T:
    """Wait for its end; a cancellation waits for it too."""
    try:
        return await asyncio.shield(job)
    except asyncio.CancelledError:
        await asyncio.wait({job})
        job.exception()  # what it ran into has no reader
        raise
