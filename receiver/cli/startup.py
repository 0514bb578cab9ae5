"""The start of what goes on: a database that cannot be reached yet is waited for.

The event loop of a command that runs for long, and how often it stops to look for cycles.

The signals that stop a command.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import FrameType
from typing import Any, TypeVar

from receiver.config import Settings
from receiver.errors import StoreRefused, StoreUnavailable
from receiver.telemetry.log import logger

T = TypeVar("T")

GC_OBJECTS = 20_000
"""New containers between two looks for cycles."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """What `asyncio.run` does, on uvloop where it is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def collect_rarely() -> None:
    """Tell the collector that all is made, and what comes now leaves no cycles behind.

    So what is there need not be looked at again, and looking every 700 objects, as is the default,
    would find nothing either.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_OBJECTS, 20, 20)


SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def captured(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Give SIGINT and SIGTERM to `handle` meanwhile."""
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
