"""Limiter of submits: rate per minute and number of running tasks, shared by all processes.

The ledger counts, so a restart does not reset the limits, and a slot is free once a task has ended.
Without configured limits, a 429 halves this process's window of concurrent requests, and each
accepted task widens it by one.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random as _random
import time
from collections.abc import Awaitable, Callable

from submitter.errors import LedgerUnavailable, Unavailable
from submitter.ledger.base import Intent, IntentWritten, Ledger, LimitReached, Limits
from submitter.reconcile.schedule import Schedule


class SubmitLimiter:
    """Limiter of one account.

    Args:
        ledger: open.
        limits: of the account.
        schedule: waits after a 429 without Retry-After.
        relieve: called repeatedly while no slot is free: queries overdue tasks, which may have
            ended unnoticed.
        clock: Unix seconds.
        random: a number from 0 to 1, for jitter.
    """

    def __init__(
        self,
        ledger: Ledger,
        limits: Limits,
        schedule: Schedule,
        *,
        relieve: Callable[[], Awaitable[object]],
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
    ) -> None:
        self._ledger = ledger
        self._limits = limits
        self._schedule = schedule
        self._relieve = relieve
        self._clock = clock
        self._random = random
        self._turn = asyncio.Lock()
        self._woken = asyncio.Event()
        self._undoing: set[asyncio.Task[None]] = set()
        self._relieving: asyncio.Task[None] | None = None
        self._sending = 0
        self._window = math.inf
        self._refusals = 0
        self._refused_until = 0.0
        self._closed = False

    async def place(self, make: Callable[[float], Intent]) -> IntentWritten:
        """Write an intent as soon as the limits allow it; first come, first served.

        If the intent is fresh, its caller sends the request and then calls `done`. A cancelled
        call leaves no intent behind.

        Args:
            make: the intent for a time (Unix seconds).

        Raises:
            LedgerUnavailable: it cannot be written.
            Unavailable: `stop` was called.
        """
        async with self._turn:
            end: Callable[[], None] | None = None
            try:
                while True:
                    self._woken.clear()
                    if self._closed:
                        raise Unavailable("the client was closed", advice="nothing was sent")
                    answer: IntentWritten | LimitReached = LimitReached(None)
                    if self._sending < self._window:
                        now = self._clock()
                        answer = await self._intend(make(now), now)
                    if isinstance(answer, IntentWritten):
                        self._sending += answer.fresh
                        return answer
                    if end is None:
                        # Try once more after subscribing: a change before that sent no wake-up.
                        end = self._ledger.subscribe(self._woken.set)
                        continue
                    await self._wait(answer)
            finally:
                if end is not None:
                    end()

    async def refused(self, retry_after: float | None) -> None:
        """Record a 429: all processes pause their submits.

        Args:
            retry_after: seconds that the API named, if any.

        Raises:
            LedgerUnavailable: the pause could not be written for other processes.
        """
        self._window = max(1.0, min(self._window, self._sending) / 2)
        now = self._clock()
        # Several 429 of requests sent together count as one.
        if now >= self._refused_until:
            wait = retry_after
            if wait is None:
                wait = self._schedule.pause(self._refusals, self._random)
            self._refusals += 1
            self._refused_until = now + wait
        elif retry_after is not None:
            self._refused_until = max(self._refused_until, now + retry_after)
        await self._ledger.pause(self._refused_until)

    def accepted(self) -> None:
        """Record an accepted task: the window grows and the 429 backoff starts again."""
        self._window += 1
        self._refusals = 0

    def done(self) -> None:
        """Record the end of a request."""
        self._sending -= 1
        self._woken.set()

    def open(self) -> None:
        """Accept submits."""
        self._closed = False

    async def stop(self) -> None:
        """End all waits for a slot; their callers get Unavailable."""
        self._closed = True
        self._woken.set()
        if self._relieving is not None:
            self._relieving.cancel()
            await asyncio.wait({self._relieving})
        if self._undoing:
            await asyncio.wait(self._undoing)

    async def _intend(self, intent: Intent, now: float) -> IntentWritten | LimitReached:
        writing = asyncio.ensure_future(self._ledger.intend(intent, self._limits, now))
        try:
            return await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The intent may be written nevertheless, and no caller is left to send it.
            undoing = asyncio.create_task(self._undo(intent.key, writing))
            self._undoing.add(undoing)
            undoing.add_done_callback(self._undoing.discard)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(undoing)
            raise

    async def _undo(self, key: str, writing: asyncio.Future[IntentWritten | LimitReached]) -> None:
        try:
            answer = await writing
            if isinstance(answer, IntentWritten) and answer.fresh:
                await self._ledger.reject(key, "cancelled before it was sent", self._clock())
        except LedgerUnavailable:
            # It becomes UNKNOWN after its `until`; the reconciler finds no task and rejects it.
            return

    async def _wait(self, full: LimitReached) -> None:
        left = self._schedule.tick
        if full.until is not None:
            left = max(full.until - self._clock(), 0.001)
        try:
            # `wait_for` of Python 3.11 loses a cancellation that meets the wake-up.
            async with asyncio.timeout(left):
                await self._woken.wait()
        except TimeoutError:
            if full.until is None and (self._relieving is None or self._relieving.done()):
                self._relieving = asyncio.create_task(self._relieved())

    async def _relieved(self) -> None:
        # If the ledger is unavailable, the next intent raises.
        with contextlib.suppress(LedgerUnavailable):
            await self._relieve()
