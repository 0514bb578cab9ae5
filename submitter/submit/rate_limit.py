"""Takes a place for each submit: so many a minute, so many tasks at once, for all processes.

The ledger counts. So a restarted process does not begin anew, and a place is free when a task has
ended, not when a timer says so. Where no limit is set and the API answers 429, this process finds
out by itself how many requests may be on their way at once.
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
    """The window of one account.

    Args:
        ledger: open.
        limits: of the account.
        schedule: of the waits after a 429 that names none.
        relieve: called now and then while all places are taken: asks for what is overdue, which
            nobody may be waiting for.
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
        """Write an intent as soon as there is room for it; first come, first served.

        Where it is fresh, its caller sends it, and then calls `done`. Whoever cancels this leaves
        nothing behind.

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
                        # Looked again after it: what changed in between woke nobody.
                        end = self._ledger.subscribe(self._woken.set)
                        continue
                    await self._wait(answer)
            finally:
                if end is not None:
                    end()

    async def refused(self, retry_after: float | None) -> None:
        """The API answered 429: nobody submits for a while.

        Args:
            retry_after: seconds that the API named; None where it named none.

        Raises:
            LedgerUnavailable: other processes could not be told.
        """
        self._window = max(1.0, min(self._window, self._sending) / 2)
        now = self._clock()
        # Those that were on their way together are one refusal.
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
        """The API took a task: the next 429 is a first one again."""
        self._window += 1
        self._refusals = 0

    def done(self) -> None:
        """A request that was on its way has its answer, or never will."""
        self._sending -= 1
        self._woken.set()

    def open(self) -> None:
        """Give places."""
        self._closed = False

    async def stop(self) -> None:
        """End all who wait for a place."""
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
            # It may be written all the same, and nobody will send it.
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
            # It is doubted when its time is over, looked for, and not found.
            return

    async def _wait(self, full: LimitReached) -> None:
        left = self._schedule.tick
        if full.until is not None:
            left = max(full.until - self._clock(), 0.001)
        try:
            await asyncio.wait_for(self._woken.wait(), left)
        except TimeoutError:
            if full.until is None and (self._relieving is None or self._relieving.done()):
                self._relieving = asyncio.create_task(self._relieved())

    async def _relieved(self) -> None:
        # Where the ledger is away, the next intent says so.
        with contextlib.suppress(LedgerUnavailable):
            await self._relieve()
