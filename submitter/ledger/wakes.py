"""Calls those who wait for a change, each on its own event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from threading import Lock


class _Waiter:
    __slots__ = ("called", "loop", "wake")

    def __init__(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        self.wake = wake
        self.loop = loop
        self.called = False


class Wakes:
    """All who want to be woken; for use from any thread."""

    def __init__(self) -> None:
        self._waiters: set[_Waiter] = set()
        self._lock = Lock()

    def add(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Wake from now on, on the loop that runs here; returns what ends it."""
        waiter = _Waiter(wake, asyncio.get_running_loop())
        with self._lock:
            self._waiters.add(waiter)
        return lambda: self._drop(waiter)

    def any(self) -> bool:
        """Whether anybody is left; those whose loop was closed are not."""
        with self._lock:
            self._waiters = {waiter for waiter in self._waiters if not waiter.loop.is_closed()}
            return bool(self._waiters)

    def fire(self) -> None:
        """Wake all, once for any number of calls until they run."""
        with self._lock:
            sleeping = [waiter for waiter in self._waiters if not waiter.called]
            for waiter in sleeping:
                waiter.called = True
        for waiter in sleeping:
            try:
                waiter.loop.call_soon_threadsafe(self._call, waiter)
            except RuntimeError:  # The loop is closed.
                self._drop(waiter)

    def _call(self, waiter: _Waiter) -> None:
        waiter.called = False
        if waiter in self._waiters:
            waiter.wake()

    def _drop(self, waiter: _Waiter) -> None:
        with self._lock:
            self._waiters.discard(waiter)
