"""What follows once an event is stored: who waits wakes up, and the ledger learns of the result.

It happens after the sender's answer and in batches, so that it costs the way in nothing; where a
process may be frozen after its answer, the answer waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Protocol

from receiver.errors import StoreError
from receiver.event import Event
from receiver.handlers.retry import describe
from receiver.intake import Accepted
from receiver.sources.base import WAVESPEED, terminal_ids
from receiver.stores.base import Store
from receiver.telemetry import Hook, TelemetryEvent
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Ledger, Result
from submitter.prediction import TERMINAL

AT_ONCE = 1000
"""Events that are looked at together."""

MANY = 16
"""Events of one look after which the next ones may gather for a moment."""

GATHER = 0.02
"""Seconds of it: each look takes time from the deliveries, whatever it looks at."""

MOST = 10_000
"""Events that wait here at most; a reconcile finds the others in the inbox."""

WAITS = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0)
"""Seconds between tries; together the time in which the answer to a submit comes."""

STOP = 5.0
"""Seconds for what is left at a stop."""

SETTLE = 2.0
"""Seconds that a reply waits for it, where nothing may be left for after the reply."""

_TYPES = frozenset(f"prediction.{status}" for status in TERMINAL)


class Waiters(Protocol):
    """Whoever waits for results."""

    def open(self) -> None:
        """Let others wait."""
        ...

    def close(self) -> None:
        """End all waits."""
        ...

    def stored(self, event: Event) -> None:
        """Wake those who wait for this one; must not block."""
        ...


@dataclass(slots=True)
class _Noted:
    """A new event; `due_at` by the event loop's clock, and `tries` that found no task."""

    accepted: Accepted
    tries: int = 0
    due_at: float = 0.0


class LedgerSync:
    """An observer of `Intake`: tells the waiting and the ledger of results.

    A result whose task the ledger does not know is tried again for a while: its webhook may have
    been faster than the answer to its submit (F28).

    Args:
        store: the inbox; asked for results that contradict the new one.
        ledger: of submissions; None: there is none to tell.
        results: are told at once.
        hooks: are told of contradictions and failures.
        clock: Unix seconds.
        waits: seconds between tries, where the ledger does not know a task or is away.
    """

    def __init__(
        self,
        store: Store,
        ledger: Ledger | None,
        results: Waiters | None = None,
        *,
        hooks: Sequence[Hook] = (),
        clock: Callable[[], float] = time.time,
        waits: Sequence[float] = WAITS,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._results = results
        self._hooks = tuple(hooks)
        self._clock = clock
        self._waits = tuple(waits)
        self._queue: deque[_Noted] = deque()
        self._batch: list[_Noted] = []
        self._later: list[_Noted] = []
        self._told: dict[frozenset[str], None] = {}
        self._missed = 0
        self._stopping = False
        self._woken = asyncio.Event()
        self._rested = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def stored(self, accepted: Accepted) -> None:
        """Note a new event; what there is to do about it is done soon."""
        event = accepted.event
        if event.source != WAVESPEED or event.type not in _TYPES or event.subject is None:
            return
        if self._results is not None:
            self._results.stored(event)
        if len(self._queue) >= MOST:
            self._missed += 1
            return
        self._queue.append(_Noted(accepted))
        loop = asyncio.get_running_loop()
        # On some platforms every request has an event loop of its own (F41).
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            self._woken, self._rested = asyncio.Event(), asyncio.Event()
            self._task = loop.create_task(self._run(), name="wavehook-follower")
        else:
            self._woken.set()
            self._rested.clear()

    async def settle(self, limit: float = SETTLE) -> None:
        """Wait until all is done that can be done now, for so many seconds at most.

        For a process that may be frozen afterwards (F41). What is not done by then, or has to wait
        for its task to become known, is done when it goes on, or found in the inbox by a drain.
        """
        if self._task is not None and not self._task.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await self._rested.wait()

    async def start(self) -> None:
        """Let others wait for results."""
        if self._results is not None:
            self._results.open()

    async def stop(self, limit: float = STOP) -> None:
        """Finish what is known of, within a time limit in seconds.

        It may be told of events again afterwards.
        """
        if self._results is not None:
            self._results.close()
        task = self._task
        here = asyncio.get_running_loop()
        if task is not None and not task.done() and task.get_loop() is here:
            self._stopping = True
            self._woken.set()
            await asyncio.wait({task}, timeout=limit)
            task.cancel()
            await asyncio.wait({task})
            self._stopping = False
        self._missed += len(self._batch) + len(self._queue)
        self._batch = []
        self._queue.clear()
        self._later.clear()
        self._tell_missed()

    async def _run(self) -> None:
        while self._queue or self._later:
            now = asyncio.get_running_loop().time()
            due = [each for each in self._later if self._due(each, now)]
            if due or self._queue:
                self._rested.clear()
                self._later = [each for each in self._later if not self._due(each, now)]
                self._queue.extend(due)
                some = min(AT_ONCE, len(self._queue))
                self._batch = [self._queue.popleft() for _ in range(some)]
                await self._persist(self._batch)
                self._batch = []
                if some > MANY and not self._stopping:
                    await asyncio.sleep(GATHER)
                continue
            self._woken.clear()
            self._rested.set()
            try:
                async with asyncio.timeout_at(min(each.due_at for each in self._later)):
                    await self._woken.wait()
            except TimeoutError:
                continue
        self._rested.set()
        self._tell_missed()

    def _due(self, noted: _Noted, now: float) -> bool:
        return self._stopping or noted.due_at <= now

    async def _persist(self, batch: Sequence[_Noted]) -> None:
        """Do what there is to do about a batch, however often it takes."""
        for wait in chain(self._waits, repeat(self._waits[-1])):
            try:
                await self._contradictions(
                    [each.accepted.event for each in batch if not each.tries]
                )
                if self._ledger is not None:
                    await self._finish(self._ledger, batch)
            except (StoreError, LedgerUnavailable) as error:
                self._tell(TelemetryEvent("follower.failed", error=describe(error)))
                await asyncio.sleep(wait)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not end the others
                # Its text may quote a body (F16).
                name = type(error).__name__
                self._tell(TelemetryEvent("follower.failed", error=name, number=len(batch)))
                return
            else:
                return

    async def _contradictions(self, events: Sequence[Event]) -> None:
        """Tell of tasks that have ended in two ways (F31); both events are kept."""
        others = {
            id: event
            for event in events
            for id in terminal_ids(event.subject or "")
            if id != event.id
        }
        there = await self._store.find(list(others)) if others else {}
        for id, other in there.items():
            event = others[id]
            pair = frozenset((id, event.id))
            if pair in self._told:
                continue
            self._told[pair] = None
            if len(self._told) > MOST:
                del self._told[next(iter(self._told))]
            self._tell(
                TelemetryEvent(
                    "prediction.contradicted",
                    event_id=event.id,
                    task_id=event.subject,
                    type=event.type,
                    other=other.type,
                )
            )

    async def _finish(self, ledger: Ledger, batch: Sequence[_Noted]) -> None:
        tasks = [each.accepted.event.subject for each in batch if not each.accepted.submission]
        known = await ledger.find_tasks([task for task in tasks if task]) if tasks else {}
        results: list[Result] = []
        unknown: list[_Noted] = []
        for noted in batch:
            event, key = noted.accepted.event, noted.accepted.submission
            if key is None and event.subject not in known:
                unknown.append(noted)
            elif event.prediction is not None:
                results.append(Result(event.prediction, key, delivered=True))
        if results:
            await ledger.finish(results, self._clock())
        # A task can still become known only where a submission is on its way.
        if unknown and not self._stopping and await ledger.open_entries(limit=1):
            now = asyncio.get_running_loop().time()
            for noted in unknown:
                self._try_later(noted, now)

    def _try_later(self, noted: _Noted, now: float) -> None:
        if noted.tries == len(self._waits):
            return
        if len(self._later) >= MOST:
            self._missed += 1
            return
        noted.due_at = now + self._waits[noted.tries]
        noted.tries += 1
        self._later.append(noted)

    def _tell_missed(self) -> None:
        if self._missed:
            text = "not told to the ledger in time; a reconcile finds them in the inbox"
            self._tell(TelemetryEvent("follower.failed", error=text, number=self._missed))
            self._missed = 0

    def _tell(self, details: TelemetryEvent) -> None:
        for hook in self._hooks:
            hook(details)
