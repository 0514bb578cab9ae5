"""Ledger sync: what follows once an event is stored, in batches and after the sender's response.

Waiting callers get the result at once; the ledger learns of it a moment later, so that the ack path
pays nothing for it. A process that may be frozen after its response awaits `flush` before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat

from receiver.errors import StoreError
from receiver.event import Event
from receiver.handlers.retry import describe
from receiver.intake import Accepted
from receiver.results.long_poll import ResultWaiters
from receiver.sources.base import WAVESPEED, terminal_ids
from receiver.stores.base import Store
from receiver.telemetry import Hook, TelemetryEvent
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Ledger, Result
from submitter.prediction import TERMINAL

BATCH_SIZE = 1000
"""Most events written to the ledger together."""

GATHER_THRESHOLD = 16
"""Batch size above which the next batch may gather for a moment."""

GATHER_S = 0.02
"""Seconds of it: every batch takes time from the deliveries, however small it is."""

MAX_QUEUED = 10_000
"""Most events that wait in memory; a reconcile finds the others in the inbox."""

RETRY_DELAYS_S = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between tries; together they outlast the response to a submit."""

STOP_TIMEOUT_S = 5.0
"""Seconds for the remaining events at a stop."""

FLUSH_TIMEOUT_S = 2.0
"""Seconds that a response waits in a process that may be frozen after it."""

_TYPES = frozenset(f"prediction.{status}" for status in TERMINAL)


@dataclass(slots=True)
class _Queued:
    """A new event; `due_at` by the event loop's clock, and `tries` that found no task."""

    accepted: Accepted
    tries: int = 0
    due_at: float = 0.0


class LedgerSync:
    """An observer of `Intake` that passes results to waiting callers and to the ledger.

    A result whose task is not in the ledger is tried again for a while: its webhook may be faster
    than the response to its submit.

    Args:
        store: the inbox; searched for results that contradict the new one.
        ledger: of submissions; None for none.
        results: callers that wait for a result.
        hooks: called for contradictions and failures.
        clock: Unix seconds.
        retry_delays: seconds between tries if the ledger is away or does not know a task.
        max_queued: most events that wait in memory.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger | None,
        results: ResultWaiters | None = None,
        *,
        hooks: Sequence[Hook] = (),
        clock: Callable[[], float] = time.time,
        retry_delays: Sequence[float] = RETRY_DELAYS_S,
        max_queued: int = MAX_QUEUED,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._results = results
        self._hooks = tuple(hooks)
        self._clock = clock
        self._retry_delays = tuple(retry_delays)
        self._max_queued = max_queued
        self._queue: deque[_Queued] = deque()
        self._batch: list[_Queued] = []
        self._later: list[_Queued] = []
        # The contradictions that are reported already, oldest first.
        self._reported: dict[frozenset[str], None] = {}
        self._dropped = 0
        self._stopping = False
        self._woken = asyncio.Event()
        self._idle = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def stored(self, accepted: Accepted) -> None:
        """Queue a new event; the background task writes it to the ledger soon."""
        event = accepted.event
        if event.source != WAVESPEED or event.type not in _TYPES or event.subject is None:
            return
        if self._results is not None:
            self._results.stored(event)
        if len(self._queue) >= self._max_queued:
            self._dropped += 1
            return
        self._queue.append(_Queued(accepted))
        loop = asyncio.get_running_loop()
        # On some platforms every request has its own event loop.
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._woken, self._idle = asyncio.Event(), asyncio.Event()
            self._task = loop.create_task(self._run(), name="wavehook-ledger-sync")
        else:
            self._woken.set()
            self._idle.clear()

    async def flush(self, timeout: float = FLUSH_TIMEOUT_S) -> None:
        """Wait, for `timeout` seconds at most, until everything is written that can be written now.

        For a process that may be frozen afterwards. The rest, and results whose task is not in the
        ledger yet, are written when it runs on, or a drain finds them in the inbox.
        """
        if self._task is not None and not self._task.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._idle.wait()

    async def start(self) -> None:
        """Let callers wait for results."""
        if self._results is not None:
            self._results.open()

    async def stop(self, timeout: float = STOP_TIMEOUT_S) -> None:
        """Write the queued events within `timeout` seconds; more may be queued afterwards."""
        if self._results is not None:
            self._results.close()
        task = self._task
        loop = asyncio.get_running_loop()
        if task is not None and not task.done() and task.get_loop() is loop:
            self._stopping = True
            self._woken.set()
            await asyncio.wait({task}, timeout=timeout)
            task.cancel()
            await asyncio.wait({task})
            self._stopping = False
        self._dropped += len(self._batch) + len(self._queue)
        self._batch = []
        self._queue.clear()
        self._later.clear()
        self._report_dropped()

    async def _run(self) -> None:
        while self._queue or self._later:
            now = asyncio.get_running_loop().time()
            due = [each for each in self._later if self._due(each, now)]
            if due or self._queue:
                self._idle.clear()
                self._later = [each for each in self._later if not self._due(each, now)]
                self._queue.extend(due)
                size = min(BATCH_SIZE, len(self._queue))
                self._batch = [self._queue.popleft() for _ in range(size)]
                await self._write(self._batch)
                self._batch = []
                if size > GATHER_THRESHOLD and not self._stopping:
                    await asyncio.sleep(GATHER_S)
                continue
            self._woken.clear()
            self._idle.set()
            try:
                async with asyncio.timeout_at(min(each.due_at for each in self._later)):
                    await self._woken.wait()
            except TimeoutError:
                continue
        self._idle.set()
        self._report_dropped()

    def _due(self, queued: _Queued, now: float) -> bool:
        return self._stopping or queued.due_at <= now

    async def _write(self, batch: Sequence[_Queued]) -> None:
        """Report contradictions and update the ledger; try again until both succeed."""
        for delay in chain(self._retry_delays, repeat(self._retry_delays[-1])):
            try:
                await self._report_contradictions(
                    [each.accepted.event for each in batch if not each.tries]
                )
                if self._ledger is not None:
                    await self._update(self._ledger, batch)
            except (StoreError, LedgerUnavailable) as error:
                self._emit(TelemetryEvent("follower.failed", error=describe(error)))
                await asyncio.sleep(delay)
            except Exception as error:  # noqa: BLE001 - a bug must not end the task
                # Only the class: the text may quote a body.
                name = type(error).__name__
                self._emit(TelemetryEvent("follower.failed", error=name, number=len(batch)))
                return
            else:
                return

    async def _report_contradictions(self, events: Sequence[Event]) -> None:
        """Report tasks that ended in two different ways; both events stay stored."""
        others = {
            id: event
            for event in events
            for id in terminal_ids(event.subject or "")
            if id != event.id
        }
        stored = await self._store.find(list(others)) if others else {}
        for id, other in stored.items():
            event = others[id]
            pair = frozenset((id, event.id))
            if pair in self._reported:
                continue
            self._reported[pair] = None
            if len(self._reported) > self._max_queued:
                del self._reported[next(iter(self._reported))]
            self._emit(
                TelemetryEvent(
                    "prediction.contradicted",
                    event_id=event.id,
                    task_id=event.subject,
                    type=event.type,
                    other=other.type,
                )
            )

    async def _update(self, ledger: Ledger, batch: Sequence[_Queued]) -> None:
        tasks = [each.accepted.event.subject for each in batch if not each.accepted.submission]
        known = await ledger.find_tasks([task for task in tasks if task]) if tasks else {}
        results: list[Result] = []
        unknown: list[_Queued] = []
        for queued in batch:
            event, key = queued.accepted.event, queued.accepted.submission
            if key is None and event.subject not in known:
                unknown.append(queued)
            elif event.prediction is not None:
                results.append(Result(event.prediction, key, delivered=True))
        if results:
            await ledger.finish(results, self._clock())
        # A task can become known later only while a submission is open.
        if unknown and not self._stopping and await ledger.open_entries(limit=1):
            now = asyncio.get_running_loop().time()
            for queued in unknown:
                self._try_later(queued, now)

    def _try_later(self, queued: _Queued, now: float) -> None:
        if queued.tries == len(self._retry_delays):
            return
        if len(self._later) >= self._max_queued:
            self._dropped += 1
            return
        queued.due_at = now + self._retry_delays[queued.tries]
        queued.tries += 1
        self._later.append(queued)

    def _report_dropped(self) -> None:
        if self._dropped:
            text = "the ledger was not updated in time; a reconcile finds the results in the inbox"
            self._emit(TelemetryEvent("follower.failed", error=text, number=self._dropped))
            self._dropped = 0

    def _emit(self, event: TelemetryEvent) -> None:
        for hook in self._hooks:
            hook(event)
