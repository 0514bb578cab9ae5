"""Registry of this process's waits for results; one reader of the ledger resolves them all.

The receiver writes results into the same ledger, or its `/api` is followed by long poll. Only
overdue tasks are queried from the API, by the reconciler, at growing intervals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from submitter.errors import StillRunning
from submitter.ledger.base import Entry, Ledger, State
from submitter.reconcile.deliver import error_text
from submitter.reconcile.reconciler import Reconciler
from submitter.reconcile.schedule import Schedule
from submitter.results.receiver_feed import ReceiverFeed

PAGE_SIZE = 1000

log = logging.getLogger("wavehook.submitter")


class WaiterRegistry:
    """Resolves the waits of one client.

    Args:
        ledger: open.
        reconciler: asks for what is overdue, of the submissions that are waited for.
        schedule: how often it looks whether something is.
        feed: hears from a receiver elsewhere; None where there is none.
    """

    def __init__(
        self, ledger: Ledger, reconciler: Reconciler, schedule: Schedule, feed: ReceiverFeed | None
    ) -> None:
        self._ledger = ledger
        self._reconciler = reconciler
        self._schedule = schedule
        self._feed = feed
        self._waits: dict[str, set[asyncio.Future[Entry]]] = {}
        # Keys that were not looked up yet, and those whose task was not known for sure when they
        # were: the order of finishing tells of neither a result before the wait, nor a rejection.
        self._new: set[str] = set()
        self._young: set[str] = set()
        self._look_again_at = 0.0
        self._place: int | None = None
        self._followers: set[Callable[[Entry | None], None]] = set()
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    def ended(self, key: str) -> asyncio.Future[Entry]:
        """The entry once it is FINISHED or REJECTED; one that is so already counts.

        Whoever no longer waits cancels the future. It raises StillRunning at the `stop`.

        Raises:
            RuntimeError: it was stopped.
        """
        if self._stopped:
            raise RuntimeError("the client was closed; open it again to wait")
        future: asyncio.Future[Entry] = asyncio.get_running_loop().create_future()
        self._waits.setdefault(key, set()).add(future)
        self._new.add(key)
        future.add_done_callback(lambda done: self._forget(key, done))
        self._start()
        return future

    @contextlib.contextmanager
    def following(self, tell: Callable[[Entry | None], None]) -> Iterator[None]:
        """Tell of every entry of the ledger that is finished meanwhile; None at the stop."""
        self._followers.add(tell)
        self._start()
        try:
            yield
        finally:
            self._followers.discard(tell)

    async def stop(self) -> None:
        """End all waits, for good; nothing is lost with them."""
        self._stopped = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        for key, futures in list(self._waits.items()):
            for future in list(futures):
                if not future.done():
                    future.set_exception(StillRunning(key, None, None))
        for tell in list(self._followers):
            tell(None)

    def _start(self) -> None:
        self._woken.set()
        if not self._tasks:
            works = [self._follow, self._reconcile, *([self._feed.run] if self._feed else [])]
            self._tasks = [asyncio.create_task(self._forever(work)) for work in works]

    async def _forever(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - others' waits must outlive it
                log.warning("waiting.failed error=%s", error_text(error))
            await asyncio.sleep(self._schedule.tick)

    def _forget(self, key: str, future: asyncio.Future[Entry]) -> None:
        futures = self._waits.get(key, set())
        futures.discard(future)
        if not futures:
            self._waits.pop(key, None)
            self._new.discard(key)
            self._young.discard(key)

    async def _follow(self) -> None:
        """Resolve waits as the ledger changes."""
        end = self._ledger.subscribe(self._woken.set)
        try:
            while True:
                self._woken.clear()
                if self._place is None:
                    self._place = await self._ledger.last_place()
                await self._look_up()
                await self._read_on(self._place)
                with contextlib.suppress(TimeoutError):
                    tick = self._schedule.tick if self._young else None
                    async with asyncio.timeout(tick):
                        await self._woken.wait()
        finally:
            end()

    async def _read_on(self, place: int) -> None:
        while several := await self._ledger.finished(place, limit=PAGE_SIZE):
            for entry in several:
                self._resolve(entry)
                for tell in list(self._followers):
                    tell(entry)
            self._place = place = several[-1].place

    async def _look_up(self) -> None:
        """Look at new keys at once, and now and then at those that were not known."""
        now = asyncio.get_running_loop().time()
        keys = set(self._new)
        if self._young and now >= self._look_again_at:
            self._look_again_at = now + self._schedule.tick
            keys |= self._young
        if not keys:
            return
        found = await self._ledger.find(list(keys))
        self._new -= keys
        for key in keys & self._waits.keys():
            entry = found.get(key)
            if entry is not None and entry.state in (State.FINISHED, State.REJECTED):
                self._resolve(entry)
            elif entry is not None and entry.state is State.ACCEPTED:
                self._young.discard(key)
                if entry.guessed:
                    # It may be taken back, and the submission turn out to have created nothing.
                    self._young.add(key)
                if self._feed is not None and entry.task_id is not None:
                    # What the receiver heard before the task's id was written down, it told to
                    # nobody.
                    self._feed.ask(entry.task_id)
            else:
                self._young.add(key)

    def _resolve(self, entry: Entry) -> None:
        for future in list(self._waits.get(entry.key, ())):
            if not future.done():
                future.set_result(entry)

    async def _reconcile(self) -> None:
        if self._waits:
            report = await self._reconciler.round(keys=list(self._waits))
            if report.error is not None:
                log.warning("reconcile.failed number=%d error=%s", report.failed, report.error)
