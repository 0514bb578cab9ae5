"""The start of what goes on: a database that cannot be reached yet is waited for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import FrameType

from receiver.cli.signals import captured
from receiver.config import Settings
from receiver.errors import StoreRefused, StoreUnavailable
from receiver.telemetry.log import logger

PATIENCE = 30.0
"""Seconds for which a server that is away may come up; it is started with what stands on it."""

AGAIN = 1.0
"""Seconds from one try to the next."""


def patience(settings: Settings) -> float:
    """Seconds for `opened`: what a file is not now, it is not a moment later."""
    return PATIENCE if settings.database_path is None else 0.0


async def opened(
    open: Callable[[], Awaitable[None]], patience: float, *, again: float = AGAIN
) -> bool:
    """Open, and try again while the database cannot be reached; each try is told of in the log.

    Args:
        open: opens it, or opens nothing.
        patience: seconds from the first try to the last.
        again: seconds between the beginnings of two.

    Returns:
        False where SIGINT or SIGTERM came before it was open.

    Raises:
        StoreUnavailable: it was not to be reached; at once where asking again cannot help.
        SchemaMismatch: see `Store.open`.
    """
    loop = asyncio.get_running_loop()
    trying = asyncio.ensure_future(_tried(open, patience, again))
    stopped = False

    def end(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        loop.call_soon_threadsafe(trying.cancel)

    with captured(end):
        try:
            await trying
        except asyncio.CancelledError:
            if not stopped:
                raise
    return not stopped


async def _tried(open: Callable[[], Awaitable[None]], patience: float, again: float) -> None:
    started = time.monotonic()
    while True:
        began = time.monotonic()
        try:
            return await open()
        except StoreRefused:
            raise
        except StoreUnavailable as error:
            now = time.monotonic()
            if now - started + again > patience:
                raise
            logger().warning("database.awaited", error=str(error), seconds=round(now - started, 1))
            await asyncio.sleep(max(began + again - now, 0.0))
