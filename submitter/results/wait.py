"""Waits for results: one reader of the ledger resolves all waits of this process.

`ResultWaiter` waits for one submission, up to a deadline; `WaiterRegistry` holds the open waits.
The receiver writes results into the same ledger, or its `/api` is read by long poll. Only overdue
tasks are queried from the API, by the reconciler, at growing intervals.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator

from submitter.api.client import ApiClient
from submitter.errors import StillRunning, Unavailable
from submitter.ledger.base import Entry, Ledger, Result, State
from submitter.prediction import Prediction
from submitter.reconcile.deliver import error_text, has_ended
from submitter.reconcile.reconciler import Reconciler
from submitter.reconcile.schedule import Schedule
from submitter.results.receiver_feed import ReceiverFeed

DEADLINE_QUERY_TIMEOUT_S = 10.0
"""Seconds for the one query of the API at a deadline."""

PAGE_SIZE = 1000
"""Finished entries that are read from the ledger at a time."""

log = logging.getLogger("wavehook.submitter")


class ResultWaiter:
    """Waits for the results of one client's submissions, up to a deadline.

    Args:
        api: an open client.
        ledger: open.
        waiters: registry of this process's waits.
        schedule: when a result is overdue.
        clock: Unix seconds.
    """

    def __init__(
        self,
        api: ApiClient,
        ledger: Ledger,
        waiters: WaiterRegistry,
        schedule: Schedule,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._api = api
        self._ledger = ledger
        self._waiters = waiters
        self._schedule = schedule
        self._clock = clock

    async def result(self, key: str, timeout: float | None) -> Prediction:
        """As `Submission.result`."""
        try:
            async with asyncio.timeout(timeout):
                entry = await self.entry(key)
        except TimeoutError:
            return await self.at_deadline(key)
        if entry.prediction is None:
            raise nothing_created(entry.reason)
        return entry.prediction

    async def entry(self, key: str) -> Entry:
        """Wait until the submission is FINISHED or REJECTED.

        Raises:
            StillRunning: the client was closed.
        """
        future = self._waiters.ended(key)
        try:
            return await future
        finally:
            future.cancel()

    async def at_deadline(self, key: str) -> Prediction:
        """The result at a deadline: from the ledger, else from one query of the API.

        Raises:
            StillRunning: the task is not known to have ended.
            Unavailable: nothing was created.
            ApiError: the API refused the query.
            LedgerUnavailable: the ledger cannot be read.
        """
        entry = (await self._ledger.find([key])).get(key)
        if entry is None:
            raise nothing_created("the timeout was over before it was sent")
        if entry.prediction is not None:
            return entry.prediction
        if entry.state is State.REJECTED:
            raise nothing_created(entry.reason)
        if entry.task_id is None:
            raise StillRunning(key, None, None)
        prediction = await self._ask_once(entry.task_id, key, entry.status)
        await self._ledger.finish([Result(prediction, key)], self._clock())
        return prediction

    async def of(self, id: str, timeout: float | None) -> Prediction:
        """As `WaveSpeed.wait`.

        Raises:
            StillRunning: the timeout is over and the task is not known to have ended.
            SubmitterError: the task is unknown, or cannot be queried.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        if known := await self._ledger.find([id]) or await self._ledger.find_tasks([id]):
            return await self.result(next(iter(known.values())).key, timeout)
        try:
            async with asyncio.timeout_at(until):
                prediction = await self._api.result(id)
        except TimeoutError:
            return await self._ask_once(id, id, None)
        if has_ended(prediction):
            return prediction
        now = self._clock()
        expected_at = now + self._schedule.expected((), webhook=False)
        entry = await self._ledger.import_task(prediction, now, expected_at=expected_at)
        return await self.result(entry.key, until and max(until - loop.time(), 0.0))

    async def _ask_once(self, task_id: str, key: str, status: str | None) -> Prediction:
        prediction = await self._api.result_now(task_id, timeout=DEADLINE_QUERY_TIMEOUT_S)
        if prediction is None or not has_ended(prediction):
            status = prediction.status if prediction else status
            raise StillRunning(key, task_id, status)
        return prediction


def nothing_created(reason: str | None) -> Unavailable:
    """The error of a submission that created nothing and may be sent again."""
    return Unavailable(reason or "the reason is unknown", advice="the submission created nothing")


class WaiterRegistry:
    """Registry of one client's open waits.

    Args:
        ledger: open.
        reconciler: queries the awaited tasks that are overdue.
        schedule: interval of its rounds.
        feed: results of a receiver on another machine, if any.
    """

    def __init__(
        self, ledger: Ledger, reconciler: Reconciler, schedule: Schedule, feed: ReceiverFeed | None
    ) -> None:
        self._ledger = ledger
        self._reconciler = reconciler
        self._schedule = schedule
        self._feed = feed
        self._waits: dict[str, set[asyncio.Future[Entry]]] = {}
        # Keys not looked up yet, and keys whose task was not certain when they were: reading the
        # finished entries in order shows neither an earlier result nor a rejection.
        self._new: set[str] = set()
        self._unsettled: set[str] = set()
        self._recheck_at = 0.0
        self._place: int | None = None
        self._followers: set[Callable[[Entry | None], None]] = set()
        self._woken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._stopped = False

    def ended(self, key: str) -> asyncio.Future[Entry]:
        """A future of the entry, resolved once it is FINISHED or REJECTED, or at once if it is.

        A caller that no longer waits cancels the future. At the `stop` it raises StillRunning.

        Raises:
            RuntimeError: the registry was stopped.
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
        """Call `tell` with every entry that finishes meanwhile, and with None at the stop."""
        self._followers.add(tell)
        self._start()
        try:
            yield
        finally:
            self._followers.discard(tell)

    async def stop(self) -> None:
        """End all waits; their tasks are not lost."""
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
            except Exception as error:  # noqa: BLE001 - other waits must continue
                log.warning("waiting.failed error=%s", error_text(error))
            await asyncio.sleep(self._schedule.tick)

    def _forget(self, key: str, future: asyncio.Future[Entry]) -> None:
        futures = self._waits.get(key, set())
        futures.discard(future)
        if not futures:
            self._waits.pop(key, None)
            self._new.discard(key)
            self._unsettled.discard(key)

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
                    tick = self._schedule.tick if self._unsettled else None
                    async with asyncio.timeout(tick):
                        await self._woken.wait()
        finally:
            end()

    async def _read_on(self, place: int) -> None:
        while page := await self._ledger.finished(place, limit=PAGE_SIZE):
            for entry in page:
                self._resolve(entry)
                for tell in list(self._followers):
                    tell(entry)
            self._place = place = page[-1].place

    async def _look_up(self) -> None:
        """Look up new keys at once, and unsettled keys once a tick."""
        now = asyncio.get_running_loop().time()
        keys = set(self._new)
        if self._unsettled and now >= self._recheck_at:
            self._recheck_at = now + self._schedule.tick
            keys |= self._unsettled
        if not keys:
            return
        found = await self._ledger.find(list(keys))
        self._new -= keys
        for key in keys & self._waits.keys():
            entry = found.get(key)
            if entry is not None and entry.state in (State.FINISHED, State.REJECTED):
                self._resolve(entry)
            elif entry is not None and entry.state is State.ACCEPTED:
                self._unsettled.discard(key)
                if entry.guessed:
                    # The match may be withdrawn, and the submit turn out to have created nothing.
                    self._unsettled.add(key)
                if self._feed is not None and entry.task_id is not None:
                    # The feed may have passed over a result that was received before the ledger
                    # had the task's id.
                    self._feed.ask(entry.task_id)
            else:
                self._unsettled.add(key)

    def _resolve(self, entry: Entry) -> None:
        for future in list(self._waits.get(entry.key, ())):
            if not future.done():
                future.set_result(entry)

    async def _reconcile(self) -> None:
        if self._waits:
            report = await self._reconciler.round(keys=list(self._waits))
            if report.error is not None:
                log.warning("reconcile.failed number=%d error=%s", report.failed, report.error)
