"""Start and stop of long-running commands: event loop, database retries, signals, collector."""

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

GC_THRESHOLD_OBJECTS = 20_000
"""New containers between two runs of the garbage collector; Python's default is 700 or 2,000."""

OPEN_TIMEOUT_S = 30.0
"""Seconds for a PostgreSQL server to come up; it may be started together with this process."""

OPEN_RETRY_INTERVAL_S = 1.0
"""Seconds from the start of one attempt to the next."""

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine as `asyncio.run` does, on uvloop if that is installed."""
    try:
        from uvloop import new_event_loop
    except ImportError:
        return asyncio.run(work)
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work)


def tune_gc() -> None:
    """Make the garbage collector run rarely, after everything that lives on has been created.

    Frozen objects are not looked at again, and requests leave few cycles behind. Without it, a
    delivery costs the full server about 8 % more CPU (30 rounds in turns).
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD_OBJECTS, 20, 20)


@contextlib.contextmanager
def signals_to(handle: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Pass SIGINT and SIGTERM to `handle` while the block runs."""
    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_timeout(settings: Settings) -> float:
    """Seconds to retry opening the database: none for SQLite, whose file does not come up later."""
    return OPEN_TIMEOUT_S if settings.database_path is None else 0.0


async def open_with_retries(
    open: Callable[[], Awaitable[None]],
    timeout: float,
    *,
    interval: float = OPEN_RETRY_INTERVAL_S,
) -> bool:
    """Open the database; retry while it cannot be reached, and log each failed attempt.

    Args:
        open: opens it completely, or raises.
        timeout: seconds from the first attempt to the last.
        interval: seconds from the start of one attempt to the next.

    Returns:
        False if SIGINT or SIGTERM arrived first.

    Raises:
        StoreUnavailable: it could not be reached; without a retry if that cannot help.
        SchemaMismatch: another version created the database.
    """
    loop = asyncio.get_running_loop()
    attempts = asyncio.ensure_future(_retry(open, timeout, interval))
    stopped = False

    def stop(_: int, __: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        loop.call_soon_threadsafe(attempts.cancel)

    with signals_to(stop):
        try:
            await attempts
        except asyncio.CancelledError:
            if not stopped:
                raise
    return not stopped


async def _retry(open: Callable[[], Awaitable[None]], timeout: float, interval: float) -> None:
    first = time.monotonic()
    while True:
        began = time.monotonic()
        try:
            return await open()
        except StoreRefused:
            raise
        except StoreUnavailable as error:
            now = time.monotonic()
            if now - first + interval > timeout:
                raise
            logger().warning("database.awaited", error=str(error), seconds=round(now - first, 1))
            await asyncio.sleep(max(began + interval - now, 0.0))
