"""Waits for results in the ledger, and meanwhile sees to it that they come.

Nobody here asks the API on a timer: the receiver writes into the same ledger, or is heard of
through its `/api`; what is overdue is asked for by the reconciler, with growing distances.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from submitter.errors import LedgerUnavailable, SubmitterError
from submitter.feed import Feed
from submitter.ledger.base import Entry, Ledger, State
from submitter.reconcile import Reconciler
from submitter.schedule import Schedule

PAGE = 1000

log = logging.getLogger("wavehook.submitter")


class Waiting:
    """Ends the waits of one process.

    Args:
        ledger: open.
        reconciler: asks for what is overdue, of the submissions that are waited for.
        schedule: how often it looks whether something is.
        feed: hears from a receiver elsewhere; None where there is none.
    """

    def __init__(
        self, ledger: Ledger, reconciler: Reconciler, schedule: Schedule, feed: Feed | None
    ) -> None:
        self._ledger = ledger
        self._reconciler = reconciler
        self._schedule = schedule
        self._feed = feed
        self._waits: dict[str, set[asyncio.Future[Entry]]] = {}
        # Keys that are looked up by name: new ones, and those whose task is not known yet.
        self._young: set[str] = set()
        self._followers: set[Callable[[Entry], None]] = set()
        self._woken = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    def ended(self, key: str) -> asyncio.Future[Entry]:
        """The entry once it is FINISHED or REJECTED; one that is so already counts.

        Whoever no longer waits cancels the future.
        """
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waits.setdefault(key, set()).add(future)
        self._young.add(key)
        future.add_done_callback(lambda done: self._forget(key, done))
        self._start()
        return future

    @contextlib.contextmanager
    def following(self, tell: Callable[[Entry], None]) -> Any:
        """Tell of every entry of the ledger that is finished meanwhile."""
        self._followers.add(tell)
        self._start()
        try:
            yield
        finally:
            self._followers.discard(tell)

    async def stop(self) -> None:
        """End all waits; nothing is lost with them."""
        for futures in list(self._waits.values()):
            for future in list(futures):
                future.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self) -> None:
        self._woken.set()
        if not self._tasks:
            for work in (self._follow(), self._reconcile(), *self._hear()):
                task = asyncio.create_task(work)
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    def _hear(self) -> list[Coroutine[Any, Any, None]]:
        return [self._feed.run()] if self._feed else []

    def _forget(self, key: str, future: asyncio.Future[Entry]) -> None:
        futures = self._waits.get(key, set())
        futures.discard(future)
        if not futures:
            self._waits.pop(key, None)
            self._young.discard(key)

    async def _follow(self) -> None:
        """Resolve waits as the ledger changes."""
        end = self._ledger.subscribe(self._woken.set)
        place: int | None = None
        try:
            while True:
                self._woken.clear()
                try:
                    if place is None:
                        place = await self._ledger.last_place()
                    await self._look_up()
                    while several := await self._ledger.finished(place, limit=PAGE):
                        place = several[-1].place
                        for entry in several:
                            self._resolve(entry)
                            for tell in list(self._followers):
                                tell(entry)
                except LedgerUnavailable as error:
                    log.warning("ledger.failed error=%s", error)
                    await asyncio.sleep(self._schedule.tick)
                    continue
                await self._woken.wait()
        finally:
            end()

    async def _look_up(self) -> None:
        young = list(self._young)
        found = await self._ledger.find(young) if young else {}
        for key, entry in found.items():
            if entry.state in (State.FINISHED, State.REJECTED):
                self._resolve(entry)
            elif entry.state is State.ACCEPTED and key in self._young:
                # From here on the order of finishing tells; but what the receiver heard before
                # the task's id was written down, it told to nobody.
                self._young.discard(key)
                if self._feed is not None and entry.task_id is not None:
                    task = asyncio.create_task(self._feed.ask(entry.task_id))
                    self._tasks.add(task)
                    task.add_done_callback(self._tasks.discard)

    def _resolve(self, entry: Entry) -> None:
        for future in list(self._waits.get(entry.key, ())):
            if not future.done():
                future.set_result(entry)

    async def _reconcile(self) -> None:
        while True:
            if self._waits:
                try:
                    await self._reconciler.round(keys=list(self._waits))
                except SubmitterError as error:
                    log.warning("reconcile.failed error=%s", error)
            await asyncio.sleep(self._schedule.tick)
