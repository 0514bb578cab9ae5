"""The dispatcher: claims due dispatches, keeps their leases alive, runs handlers, settles.

Each handler has its own concurrency slots, and claims are limited by handler: one that hangs or
fails fills its own slots and no others. An event that this process stores wakes the dispatcher at
once; events that other processes store are found by polling, or by the store's notifications.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as _random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import assert_never, cast

from receiver.dispatch.attempt import CANCEL_GRACE_S, run
from receiver.dispatch.slots import ConcurrencySlots
from receiver.errors import Retry, StoreUnavailable
from receiver.event import Claim, Dead, Dispatch, Done, Outcome, Released, RetryAt
from receiver.handlers.base import Installed
from receiver.handlers.retry import describe
from receiver.stores.base import Store
from receiver.stores.rate_limit import burst_tolerance
from receiver.telemetry import Hook, TelemetryEvent

SETTLE_RETRY_INTERVAL_S = 0.5
"""Seconds between two attempts to record an outcome while the store is away."""

RATE_POLL_RANGE_S = (0.01, 0.1)
"""Shortest and longest interval of polling while other processes use up a handler's rate; the
longest holds only if it costs the handler nothing of its rate."""

CLOSE_TIMEOUT_S = 5.0
"""Seconds for a handler to close its connections at a stop."""


class Dispatcher:
    """Runs handlers for the events of one store.

    Args:
        store: the inbox.
        handlers: the handlers that this process runs; dispatches of others are left alone.
        owner: unique to this dispatcher; it fences its leases.
        hooks: called for every outcome and every failure.
        clock: Unix seconds.
        random: returns a number from 0 to 1, for the jitter.
        lease: seconds until an unrenewed lease expires (the visibility timeout).
        poll: seconds between two polls of the store when nothing wakes the dispatcher.
        cancel_grace: seconds for a cancelled handler to clean up.
        close_timeout: seconds for each handler to close at a stop.
        settle_retry_interval: seconds between two attempts to record an outcome.
    """

    def __init__(
        self,
        store: Store,
        handlers: Sequence[Installed],
        *,
        owner: str,
        hooks: Sequence[Hook] = (),
        clock: Callable[[], float] = time.time,
        random: Callable[[], float] = _random.random,
        lease: float = 60.0,
        poll: float = 1.0,
        cancel_grace: float = CANCEL_GRACE_S,
        close_timeout: float = CLOSE_TIMEOUT_S,
        settle_retry_interval: float = SETTLE_RETRY_INTERVAL_S,
    ) -> None:
        self._store = store
        self._handlers = tuple(handlers)
        self._owner = owner
        self._hooks = tuple(hooks)
        self._clock = clock
        self._random = random
        self._lease = lease
        self._poll = poll
        self._cancel_grace = cancel_grace
        self._close_timeout = close_timeout
        self._settle_retry_interval = settle_retry_interval
        self._slots = {each.name: ConcurrencySlots(each) for each in handlers}
        # Tasks until their outcome is recorded, and those among them whose handler still runs.
        self._running: dict[asyncio.Task[None], Dispatch] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        # A loop or drain ends when this number is no longer the one with which it began.
        self._stops = 0
        # True from the start: a handler may open connections when it is made.
        self._unclosed = True
        self._loop: asyncio.Task[None] | None = None
        store.subscribe(self._woken.set)

    async def start(self) -> None:
        """Start to work in the background."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._work(self._stops), name="wavehook-dispatcher")

    async def stop(self, grace: float) -> None:
        """Stop claiming, wait for running handlers, release the rest, close the handlers.

        It applies to `start` and `drain` alike. Handlers may run again afterwards; the next stop
        then closes them again.

        Args:
            grace: seconds for running handlers; then they are cancelled, and their dispatches are
                released, so that others can claim them at once.
        """
        self._stops += 1
        self._woken.set()
        if self._loop is not None:
            await self._loop
            self._loop = None
        async with self._heartbeat():
            await _finish(set(self._running), grace)
        if self._unclosed:
            self._unclosed = False
            await asyncio.gather(*(self._close(each) for each in self._handlers))

    async def drain(self, limit: int | None = None, deadline: float | None = None) -> int:
        """Run what is due now and what becomes due meanwhile, then return.

        Args:
            limit: the most dispatches to run; None for all.
            deadline: seconds from now; unfinished dispatches are released then. None for none.

        Returns:
            The number of dispatches run.

        Raises:
            StoreUnavailable: the store cannot be read.
        """
        until = None if deadline is None else asyncio.get_running_loop().time() + deadline
        count, stops = 0, self._stops
        mine: set[asyncio.Task[None]] = set()
        async with self._heartbeat():
            while stops == self._stops and (limit is None or count < limit):
                left = None if until is None else until - asyncio.get_running_loop().time()
                if left is not None and left <= 0:
                    break
                started = await self._claim(None if limit is None else limit - count)
                count += len(started)
                mine = {task for task in mine if not task.done()} | set(started)
                if not mine:
                    break
                if not started:
                    await asyncio.wait(mine, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            left = None if until is None else max(0, until - asyncio.get_running_loop().time())
            await _finish(mine, left)
        return count

    async def _close(self, handler: Installed) -> None:
        if handler.close is not None:
            try:
                async with asyncio.timeout(self._close_timeout):
                    await handler.close()
            except Exception as error:  # noqa: BLE001 - the other handlers are closed too
                text = handler.masked(describe(error))
                self._emit(TelemetryEvent("handler.failed", handler=handler.name, error=text))

    async def _work(self, stops: int) -> None:
        async with self._heartbeat():
            while stops == self._stops:
                self._woken.clear()
                try:
                    idle = 0.0 if await self._claim(None) else await self._idle()
                except StoreUnavailable as error:
                    self._emit(TelemetryEvent("store.failed", error=str(error)))
                    idle = self._poll
                except Exception as error:  # noqa: BLE001 - the loop must outlive any bug
                    self._emit(TelemetryEvent("dispatcher.failed", error=describe(error)))
                    idle = self._poll
                if idle and stops == self._stops:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(idle):
                            await self._woken.wait()

    async def _idle(self) -> float:
        """Seconds to sleep at most: until something may be due that wakes nobody."""
        now = self._clock()
        waits, spares = [self._poll], {}
        for name, slots in self._slots.items():
            if slots.rate is not None:
                if wait := slots.rate_wait(now):
                    waits.append(wait)
                else:
                    # Nothing was claimed: nothing is due, or other processes use up the rate.
                    spares[name] = burst_tolerance(slots.rate)
        if spares and (due := await self._store.next_due(list(spares))) is not None:
            shortest, longest = RATE_POLL_RANGE_S
            waits.append(max(due - now, shortest, min(longest, *spares.values())))
        return min(waits)

    async def _claim(self, limit: int | None) -> list[asyncio.Task[None]]:
        """Lease due dispatches for all available slots, `limit` at most, and start them."""
        now = self._clock()
        limits, rates = {}, {}
        for name, slots in self._slots.items():
            available = slots.available(now)
            if limit is not None:
                available = min(available, limit)
            if available > 0:
                limits[name] = available
                if slots.installed.rate is not None:
                    rates[name] = slots.installed.rate
                limit = None if limit is None else limit - available
        if not limits:
            return []
        claims = await self._store.claim(self._owner, limits, self._lease, now, rates)
        return [self._begin(claim, now) for claim in claims]

    def _begin(self, claim: Claim, now: float) -> asyncio.Task[None]:
        slots = self._slots[claim.dispatch.handler]
        slots.start(now)
        self._unclosed = True
        task = asyncio.create_task(self._handle(slots, claim, self._stops))
        self._running[task] = claim.dispatch
        self._handling.add(task)
        task.add_done_callback(lambda done: self._ended(done, slots))
        return task

    def _ended(self, task: asyncio.Task[None], slots: ConcurrencySlots) -> None:
        del self._running[task]
        self._handler_ended(task, slots)
        slots.settle()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._emit(
                TelemetryEvent(
                    "dispatcher.failed", handler=slots.installed.name, error=describe(error)
                )
            )
        self._woken.set()

    async def _handle(self, slots: ConcurrencySlots, claim: Claim, stops: int) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        started = asyncio.get_running_loop().time()
        error: BaseException | None = None
        try:
            outcome, error = await run(
                slots.installed,
                claim,
                self._clock(),
                self._random,
                cancel_grace=self._cancel_grace,
            )
        except asyncio.CancelledError:
            outcome = Released()
        seconds = asyncio.get_running_loop().time() - started
        if isinstance(error, Retry) and error.pause and isinstance(outcome, RetryAt):
            await self._pause(claim.dispatch.handler, outcome.at)
        self._handler_ended(task, slots)
        await self._settle(claim, outcome, seconds, stops)

    def _handler_ended(self, task: asyncio.Task[None], slots: ConcurrencySlots) -> None:
        if task in self._handling:
            self._handling.discard(task)
            slots.end()
            self._woken.set()

    async def _pause(self, handler: str, until: float) -> None:
        try:
            await self._store.pause(handler, until)
        except StoreUnavailable as error:
            self._emit(TelemetryEvent("store.failed", handler=handler, error=str(error)))
        else:
            self._emit(TelemetryEvent("handler.paused", handler=handler, until=until))

    async def _settle(self, claim: Claim, outcome: Outcome, seconds: float, stops: int) -> None:
        dispatch = claim.dispatch
        recorded = None
        while recorded is None:
            try:
                recorded = await self._store.settle(dispatch, self._owner, outcome, self._clock())
            except StoreUnavailable as error:
                self._emit(
                    TelemetryEvent("store.failed", event_id=dispatch.event_id, error=str(error))
                )
                if stops != self._stops:
                    return
                await asyncio.sleep(self._settle_retry_interval)
        word, error_text, until = _outcome_fields(outcome)
        self._emit(
            TelemetryEvent(
                "dispatch.settled" if recorded else "dispatch.lost",
                source=claim.event.source,
                event_id=dispatch.event_id,
                type=claim.event.type,
                handler=dispatch.handler,
                attempt=dispatch.attempt,
                outcome=word,
                seconds=seconds,
                error=error_text,
                until=until,
            )
        )
        if recorded and until is not None:
            delay = max(0.0, until - self._clock())
            asyncio.get_running_loop().call_later(delay, self._woken.set)
        elif recorded and isinstance(outcome, Done | Dead):
            # Another handler may run `after` this one.
            self._woken.set()

    @contextlib.asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[None]:
        """Renew the leases of everything that runs, meanwhile."""
        beat = asyncio.create_task(self._beat(), name="wavehook-heartbeat")
        try:
            yield
        finally:
            beat.cancel()
            await asyncio.wait({beat})

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._lease / 3)
            held = {dispatch.key: task for task, dispatch in self._running.items()}
            if not held:
                continue
            try:
                lost = await self._store.extend(
                    list(self._running.values()), self._owner, self._lease, self._clock()
                )
            except StoreUnavailable as error:
                self._emit(TelemetryEvent("store.failed", error=str(error)))
                continue
            for dispatch in lost:
                # Another dispatcher may own it by now, and would do the same work again. A dispatch
                # that was settled a moment ago is not leased either; its task ends by itself.
                if (task := held[dispatch.key]) in self._handling:
                    task.cancel()

    def _emit(self, event: TelemetryEvent) -> None:
        for hook in self._hooks:
            hook(event)


async def _finish(tasks: set[asyncio.Task[None]], grace: float | None) -> None:
    """Wait for tasks, cancel those that take longer than `grace` seconds, wait for those too."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=grace)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)


def _outcome_fields(outcome: Outcome) -> tuple[str, str | None, float | None]:
    match outcome:
        case Done():
            return "done", None, None
        case RetryAt():
            return "retry", outcome.error, outcome.at
        case Dead():
            return "dead", outcome.error, None
        case Released():
            return "released", None, None
        case never:
            assert_never(never)
