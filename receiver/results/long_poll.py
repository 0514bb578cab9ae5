"""Long polls: callers that wait for results.

An event that this process stores wakes them at once. Events that other processes store in the same
database are found by polling it, once for all callers, and only while somebody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from receiver.event import Event
from receiver.sources.base import terminal_ids
from receiver.stores.base import Store

_Waiter: TypeAlias = "asyncio.Future[Event | None]"


class ResultWaiters:
    """Reads the events that end tasks, and lets callers wait for them; on one event loop.

    Args:
        store: the inbox; the owner opens and closes it.
        poll: seconds between two polls for events of other processes.
    """

    def __init__(self, store: Store, *, poll: float = 1.0) -> None:
        self._store = store
        self._poll = poll
        self._closed = False
        self._tasks: dict[str, set[_Waiter]] = {}
        self._readers: set[_Waiter] = set()
        self._count = 0
        self._polling: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Let callers wait again after a `close`."""
        self._closed = False

    def close(self) -> None:
        """End all waits with what is stored, and refuse further waits until `open`."""
        self._closed = True
        for waiter in self._all():
            _resolve(waiter, None)

    def stored(self, event: Event) -> None:
        """Wake the callers that wait for a new event of this process."""
        for waiter in self._tasks.get(event.id, ()):
            _resolve(waiter, event)
        if self._readers and _ends_a_task(event):
            for waiter in self._readers:
                _resolve(waiter, None)

    async def result(self, task_id: str, wait: float) -> Event | None:
        """The event that ended a task; the first one received if there are several.

        Args:
            task_id: the API's id of the task.
            wait: seconds to wait at most; 0 reads once.

        Returns:
            The event, or None if there is none yet.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        ids = terminal_ids(task_id)
        # Registered before the read, so that no event falls between.
        with self._registered(ids) as waiter:
            found = min((await self._store.find(ids)).values(), key=_order, default=None)
            if found is None and wait > 0 and not self._closed:
                await asyncio.wait([waiter], timeout=wait)
            return found or (waiter.result() if waiter.done() else None)

    async def after(self, seq: int | None, wait: float, limit: int) -> tuple[int, list[Event]]:
        """The next events that ended tasks, in order of arrival.

        Args:
            seq: the cursor of the previous call; None to begin with events from now on.
            wait: seconds to wait at most while there is none; 0 reads once.
            limit: the most events to return.

        Returns:
            The cursor for the next call, and the events. A reader misses none, whichever process
            stores them; after the database was replaced, it begins at the first.

        Raises:
            StoreUnavailable: the store cannot be read now.
        """
        last = await self._store.last_seq()
        if seq is None:
            return last, []
        # A cursor past the end is of another database, or of one that was restored since.
        seq = seq if seq <= last else 0
        clock = asyncio.get_running_loop()
        until = clock.time() + wait
        while True:
            with self._registered() as waiter:
                seq, found = await self._page(seq, limit)
                left = until - clock.time()
                if found or left <= 0 or self._closed:
                    return seq, found
                await asyncio.wait([waiter], timeout=left)
                if waiter.done():
                    waiter.result()

    async def _page(self, seq: int, limit: int) -> tuple[int, list[Event]]:
        """Read on until there is a result, or no more events."""
        found: list[Event] = []
        while not found and (listed := await self._store.since(seq, limit=limit)):
            seq = listed[-1].seq
            found = [each.event for each in listed if _ends_a_task(each.event)]
        return seq, found

    @contextmanager
    def _registered(self, ids: Sequence[str] = ()) -> Iterator[_Waiter]:
        """Register a waiter for these events, or without ids for every event that ends a task."""
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        for id in ids:
            self._tasks.setdefault(id, set()).add(waiter)
        if not ids:
            self._readers.add(waiter)
        self._count += 1
        if self._polling is None:
            self._polling = asyncio.create_task(self._poll_store(), name="wavehook-results")
        try:
            yield waiter
        finally:
            for id in ids:
                self._tasks[id].discard(waiter)
                if not self._tasks[id]:
                    del self._tasks[id]
            self._readers.discard(waiter)
            self._count -= 1
            if not self._count:
                self._polling.cancel()
                self._polling = None

    async def _poll_store(self) -> None:
        """Poll for events of other processes, for all waiters."""
        seen = None
        while True:
            await asyncio.sleep(self._poll)
            try:
                # Read first: an event that is stored meanwhile is found by the next poll.
                last = await self._store.last_seq()
                if last != seen:
                    seen = last
                    await self._wake_stored()
            except Exception as error:  # noqa: BLE001 - handed to the waiters
                for waiter in self._all():
                    _fail(waiter, error)

    async def _wake_stored(self) -> None:
        for waiter in self._readers:
            _resolve(waiter, None)
        found = await self._store.find(list(self._tasks))
        for event in sorted(found.values(), key=_order):
            for waiter in self._tasks.get(event.id, ()):
                _resolve(waiter, event)

    def _all(self) -> set[_Waiter]:
        return self._readers.union(*self._tasks.values())


def _ends_a_task(event: Event) -> bool:
    return event.subject is not None and event.id in terminal_ids(event.subject)


def _order(event: Event) -> tuple[float, str]:
    return event.received_at, event.id


def _resolve(waiter: _Waiter, event: Event | None) -> None:
    if not waiter.done():
        waiter.set_result(event)


def _fail(waiter: _Waiter, error: Exception) -> None:
    if not waiter.done():
        waiter.set_exception(error)
        # Marks it as retrieved: the waiter may have a result already, and asyncio would log it.
        waiter.exception()
