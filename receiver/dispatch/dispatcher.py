"""The dispatcher: claims what is due, keeps the leases alive, runs handlers, settles.

Each handler has its own lane of places and rate, and claims are by handler: one that hangs or
fails fills its own lane and nobody else's. An event stored by this process wakes the dispatcher
at once; what other processes stored is found by polling. The rate of a handler is held by the
store, over all processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import random as _random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import assert_never, cast

from receiver.dispatch.attempt import run
from receiver.dispatch.slots import ConcurrencySlots
from receiver.errors import Retry, StoreUnavailable
from receiver.event import Claim, Dead, Dispatch, Done, Outcome, Released, RetryAt
from receiver.handlers.base import Installed
from receiver.handlers.retry import describe
from receiver.stores.base import Store
from receiver.stores.rate_limit import spare
from receiver.telemetry import Hook, TelemetryEvent

SETTLE_PAUSE = 0.5
"""Seconds between two tries to record an outcome in a store that is away."""

LOOKS = 0.01, 0.1
"""Seconds between two looks while other processes use a handler's rate up: at least, and where that
costs the handler nothing of its rate."""

CLOSE_LIMIT = 5.0
"""Seconds that a handler has to let go of what it holds."""


class Dispatcher:
    """Runs handlers.

    Args:
        store: the inbox.
        handlers: those that this process runs; others' dispatches are left alone.
        owner: unique to this dispatcher, for the fence of its leases.
        hooks: told what happens.
        clock: Unix seconds.
        random: a number from 0 to 1, for jitter.
        lease: seconds that a dispatch stays ours without a sign of life.
        poll: seconds between two looks into the store when nothing wakes us.
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
    ) -> None:
        self._store = store
        self._handlers = tuple(handlers)
        self._owner = owner
        self._hooks = tuple(hooks)
        self._clock = clock
        self._random = random
        self._lease = lease
        self._poll = poll
        self._lanes = {each.name: ConcurrencySlots(each) for each in handlers}
        self._running: dict[asyncio.Task[None], Dispatch] = {}
        self._handling: set[asyncio.Task[None]] = set()
        self._woken = asyncio.Event()
        self._stops = 0
        # What a handler holds, it may hold from its making on.
        self._unclosed = True
        self._loop: asyncio.Task[None] | None = None
        store.subscribe(self.wake)

    def wake(self) -> None:
        """Look into the store now; on the event loop."""
        self._woken.set()

    async def start(self) -> None:
        """Begin to work in the background."""
        if self._loop is None:
            self._loop = asyncio.create_task(self._work(self._stops), name="wavehook-dispatcher")

    async def stop(self, grace: float) -> None:
        """Claim nothing more, let what runs finish, give back the rest, close the handlers.

        However the handlers were run, in the background or by `drain`. They may be run again
        after it, and are then closed again by the next stop.

        Args:
            grace: seconds that running handlers have; then they are cancelled, and their
                dispatches are free for others at once (F40).
        """
        self._stops += 1
        self.wake()
        if self._loop is not None:
            await self._loop
            self._loop = None
        async with self._heartbeat():
            await _end(set(self._running), grace)
        if self._unclosed:
            self._unclosed = False
            await asyncio.gather(*(self._close(each) for each in self._handlers))

    async def drain(self, limit: int | None = None, deadline: float | None = None) -> int:
        """Run what is due now, and what becomes due while it runs, then return.

        Args:
            limit: dispatches at most.
            deadline: seconds from now; what has not ended then is given back.

        Returns:
            How many were run.

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
            await _end(mine, left)
        return count

    async def _close(self, handler: Installed) -> None:
        if handler.close is not None:
            try:
                async with asyncio.timeout(CLOSE_LIMIT):
                    await handler.close()
            except Exception as error:  # noqa: BLE001 - one handler's end is not another's
                text = handler.masked(describe(error))
                self._tell(TelemetryEvent("handler.failed", handler=handler.name, error=text))

    async def _work(self, stops: int) -> None:
        async with self._heartbeat():
            while stops == self._stops:
                self._woken.clear()
                try:
                    idle = 0.0 if await self._claim(None) else await self._idle()
                except StoreUnavailable as error:
                    self._tell(TelemetryEvent("store.failed", error=str(error)))
                    idle = self._poll
                except Exception as error:  # noqa: BLE001 - the loop must outlive a fault of ours
                    self._tell(TelemetryEvent("dispatcher.failed", error=describe(error)))
                    idle = self._poll
                if idle and stops == self._stops:
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._woken.wait(), idle)

    async def _idle(self) -> float:
        """Seconds until there may be something to do that nobody wakes us for."""
        now = self._clock()
        waits, spares = [self._poll], {}
        for name, lane in self._lanes.items():
            if lane.rate is not None:
                if wait := lane.wait(now):
                    waits.append(wait)
                else:
                    # We would start one: there is none, or other processes use the rate up.
                    spares[name] = spare(lane.rate)
        if spares and (due := await self._store.next_due(list(spares))) is not None:
            least, most = LOOKS
            waits.append(max(due - now, least, min(most, *spares.values())))
        return min(waits)

    async def _claim(self, most: int | None) -> list[asyncio.Task[None]]:
        """Lease what the lanes have room for, and start it."""
        now = self._clock()
        limits, rates = {}, {}
        for name, lane in self._lanes.items():
            free = lane.free(now) if most is None else min(lane.free(now), most)
            if free > 0:
                limits[name] = free
                if lane.installed.rate is not None:
                    rates[name] = lane.installed.rate
                most = None if most is None else most - free
        if not limits:
            return []
        claims = await self._store.claim(self._owner, limits, self._lease, now, rates)
        return [self._begin(claim, now) for claim in claims]

    def _begin(self, claim: Claim, now: float) -> asyncio.Task[None]:
        lane = self._lanes[claim.dispatch.handler]
        lane.start(now)
        self._unclosed = True
        task = asyncio.create_task(self._handle(lane, claim, self._stops))
        self._running[task] = claim.dispatch
        self._handling.add(task)
        task.add_done_callback(lambda done: self._ended(done, lane))
        return task

    def _ended(self, task: asyncio.Task[None], lane: ConcurrencySlots) -> None:
        del self._running[task]
        self._free(task, lane)
        lane.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._tell(
                TelemetryEvent(
                    "dispatcher.failed", handler=lane.installed.name, error=describe(error)
                )
            )
        self.wake()

    async def _handle(self, lane: ConcurrencySlots, claim: Claim, stops: int) -> None:
        task = cast("asyncio.Task[None]", asyncio.current_task())
        started = asyncio.get_running_loop().time()
        error: BaseException | None = None
        try:
            outcome, error = await run(lane.installed, claim, self._clock(), self._random)
        except asyncio.CancelledError:
            outcome = Released()
        seconds = asyncio.get_running_loop().time() - started
        if isinstance(error, Retry) and error.pause and isinstance(outcome, RetryAt):
            await self._pause(claim.dispatch.handler, outcome.at)
        self._free(task, lane)
        await self._settle(claim, outcome, seconds, stops)

    def _free(self, task: asyncio.Task[None], lane: ConcurrencySlots) -> None:
        if task in self._handling:
            self._handling.discard(task)
            lane.end()
            self.wake()

    async def _pause(self, handler: str, until: float) -> None:
        try:
            await self._store.pause(handler, until)
        except StoreUnavailable as error:
            self._tell(TelemetryEvent("store.failed", handler=handler, error=str(error)))
        else:
            self._tell(TelemetryEvent("handler.paused", handler=handler, until=until))

    async def _settle(self, claim: Claim, outcome: Outcome, seconds: float, stops: int) -> None:
        dispatch = claim.dispatch
        kept = None
        while kept is None:
            try:
                kept = await self._store.settle(dispatch, self._owner, outcome, self._clock())
            except StoreUnavailable as error:
                self._tell(
                    TelemetryEvent("store.failed", event_id=dispatch.event_id, error=str(error))
                )
                if stops != self._stops:
                    return
                await asyncio.sleep(SETTLE_PAUSE)
        word, error_text, until = _words(outcome)
        self._tell(
            TelemetryEvent(
                "dispatch.settled" if kept else "dispatch.lost",
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
        if kept and until is not None:
            delay = max(0.0, until - self._clock())
            asyncio.get_running_loop().call_later(delay, self.wake)
        elif kept and isinstance(outcome, Done | Dead):
            # Another lane may have waited for this one.
            self.wake()

    @contextlib.asynccontextmanager
    async def _heartbeat(self) -> AsyncIterator[None]:
        """Keep the leases of all that runs alive."""
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
                self._tell(TelemetryEvent("store.failed", error=str(error)))
                continue
            for dispatch in lost:
                # Another owns it by now: what this run would still do is done twice. One that
                # has just been settled is not leased either, and is left to end.
                if (task := held[dispatch.key]) in self._handling:
                    task.cancel()

    def _tell(self, details: TelemetryEvent) -> None:
        for hook in self._hooks:
            hook(details)


async def _end(tasks: set[asyncio.Task[None]], grace: float | None) -> None:
    """Wait for tasks, cancel those that take longer than `grace` seconds, wait for these."""
    if not tasks:
        return
    _, late = await asyncio.wait(tasks, timeout=grace)
    for task in late:
        task.cancel()
    if late:
        await asyncio.wait(late)


def _words(outcome: Outcome) -> tuple[str, str | None, float | None]:
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
