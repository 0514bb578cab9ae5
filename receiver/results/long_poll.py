"""Whoever waits for a result is told of its event: at once where this process stored it.

What another process stores on the same database is found by one look for all waiters, now and
then, and only while somebody waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

from receiver.event import Event
from receiver.sources.base import terminal_ids
from receiver.stores.base import Store

_Told: TypeAlias = "asyncio.Future[Event | None]"


class ResultWaiters:
    """Gives out the events that end tasks, and lets callers wait for them.

    All of it runs on one event loop.

    Args:
        store: the inbox; somebody else opens and closes it.
        poll: seconds between two looks for what other processes have stored.
    """

    def __init__(self, store: Store, *, poll: float = 1.0) -> None:
        self._store = store
        self._poll = poll
        self._closed = False
        self._tasks: dict[str, set[_Told]] = {}
        self._readers: set[_Told] = set()
        self._count = 0
        self._looking: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Let callers wait again, after a `close`."""
        self._closed = False

    def close(self) -> None:
        """End all waits with what is there, and let nobody wait until `open`."""
        self._closed = True
        for told in self._all():
            _tell(told, None)

    def stored(self, event: Event) -> None:
        """Tell the waiting of an event that this process has stored, and that is new."""
        for told in self._tasks.get(event.id, ()):
            _tell(told, event)
        if self._readers and _ends_a_task(event):
            for told in self._readers:
                _tell(told, None)

    async def result(self, task_id: str, wait: float) -> Event | None:
        """The event that ended a task; the first one received, where there are several (F31).

        Args:
            task_id: the API's id of the task.
            wait: seconds to wait for it at most; 0 looks once.

        Returns:
            The event, or None where there is none yet.

        Raises:
            StoreUnavailable: it cannot be known now.
        """
        ids = terminal_ids(task_id)
        # Registered before the look, so that nothing falls between.
        with self._told(ids) as told:
            found = min((await self._store.find(ids)).values(), key=_order, default=None)
            if found is None and wait > 0 and not self._closed:
                await asyncio.wait([told], timeout=wait)
            return found or (told.result() if told.done() else None)

    async def after(self, seq: int | None, wait: float, limit: int) -> tuple[int, list[Event]]:
        """The next events that ended tasks, in order of arrival.

        Args:
            seq: the number this gave before; None to begin with what comes from now on.
            wait: seconds to wait at most where there is none yet; 0 looks once.
            limit: how many at most.

        Returns:
            The number to ask with next time, and the events. A reader misses none, whatever
            process stores them; where the database was replaced, it begins at the first.

        Raises:
            StoreUnavailable: it cannot be known now.
        """
        last = await self._store.last_seq()
        if seq is None:
            return last, []
        # A number that is not given out yet is of another database, or of one since restored.
        seq = seq if seq <= last else 0
        clock = asyncio.get_running_loop()
        until = clock.time() + wait
        while True:
            with self._told() as told:
                seq, found = await self._page(seq, limit)
                left = until - clock.time()
                if found or left <= 0 or self._closed:
                    return seq, found
                await asyncio.wait([told], timeout=left)
                if told.done():
                    told.result()

    async def _page(self, seq: int, limit: int) -> tuple[int, list[Event]]:
        """Read on until there is something to give, or nothing more."""
        found: list[Event] = []
        while not found and (listed := await self._store.since(seq, limit=limit)):
            seq = listed[-1].seq
            found = [each.event for each in listed if _ends_a_task(each.event)]
        return seq, found

    @contextmanager
    def _told(self, ids: Sequence[str] = ()) -> Iterator[_Told]:
        """Meanwhile be told of these events; with none named, of every event that ends a task."""
        told: _Told = asyncio.get_running_loop().create_future()
        for id in ids:
            self._tasks.setdefault(id, set()).add(told)
        if not ids:
            self._readers.add(told)
        self._count += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look(), name="wavehook-results")
        try:
            yield told
        finally:
            for id in ids:
                self._tasks[id].discard(told)
                if not self._tasks[id]:
                    del self._tasks[id]
            self._readers.discard(told)
            self._count -= 1
            if not self._count:
                self._looking.cancel()
                self._looking = None

    async def _look(self) -> None:
        """Look for what other processes have stored, for all who wait."""
        seen = None
        while True:
            await asyncio.sleep(self._poll)
            try:
                # Asked for first: what comes in between is new to the next look again.
                last = await self._store.last_seq()
                if last != seen:
                    seen = last
                    await self._find()
            except Exception as error:  # noqa: BLE001 - handed to whoever waits
                for told in self._all():
                    _fail(told, error)

    async def _find(self) -> None:
        for told in self._readers:
            _tell(told, None)
        found = await self._store.find(list(self._tasks))
        for event in sorted(found.values(), key=_order):
            for told in self._tasks.get(event.id, ()):
                _tell(told, event)

    def _all(self) -> set[_Told]:
        return self._readers.union(*self._tasks.values())


def _ends_a_task(event: Event) -> bool:
    return event.subject is not None and event.id in terminal_ids(event.subject)


def _order(event: Event) -> tuple[float, str]:
    return event.received_at, event.id


def _tell(told: _Told, event: Event | None) -> None:
    if not told.done():
        told.set_result(event)


def _fail(told: _Told, error: Exception) -> None:
    if not told.done():
        told.set_exception(error)
        # Whoever waits may have an answer from elsewhere: nothing is lost with this one.
        told.exception()
