"""Wait for the result of one submission, up to a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from submitter.api.client import ApiClient
from submitter.errors import StillRunning, Unavailable
from submitter.ledger.base import Entry, Ledger, Result, State
from submitter.prediction import Prediction
from submitter.reconcile.deliver import has_ended
from submitter.reconcile.schedule import Schedule
from submitter.results.waiters import WaiterRegistry

DEADLINE_QUERY_TIMEOUT_S = 10.0
"""Seconds that the question at a deadline may take."""


class ResultWaiter:
    """Waits for results of one client.

    Args:
        calls: of the API.
        ledger: open.
        waiting: ends the waits of this process.
        schedule: when a result is overdue.
        clock: Unix seconds.
    """

    def __init__(
        self,
        calls: ApiClient,
        ledger: Ledger,
        waiting: WaiterRegistry,
        schedule: Schedule,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._calls = calls
        self._ledger = ledger
        self._waiting = waiting
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
        """The submission once it is FINISHED or REJECTED.

        Raises:
            StillRunning: the client was closed.
        """
        future = self._waiting.ended(key)
        try:
            return await future
        finally:
            future.cancel()

    async def at_deadline(self, key: str) -> Prediction:
        """The result at a deadline: from the ledger, else from one query of the API.

        Raises:
            StillRunning: the task has not ended, as far as is known.
            Unavailable: nothing was created.
            ApiError: the API refused the question.
            LedgerUnavailable: nothing can be read now.
        """
        entry = (await self._ledger.find([key])).get(key)
        if entry is None:
            raise nothing_created("there was no place for it in time")
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
            StillRunning: the time is over and the task has not ended, as far as is known.
            SubmitterError: nobody knows it, or nobody can be asked.
        """
        loop = asyncio.get_running_loop()
        until = None if timeout is None else loop.time() + timeout
        if known := await self._ledger.find([id]) or await self._ledger.find_tasks([id]):
            return await self.result(next(iter(known.values())).key, timeout)
        try:
            async with asyncio.timeout_at(until):
                prediction = await self._calls.result(id)
        except TimeoutError:
            return await self._ask_once(id, id, None)
        if has_ended(prediction):
            return prediction
        now = self._clock()
        expected_at = now + self._schedule.expected((), webhook=False)
        entry = await self._ledger.import_task(prediction, now, expected_at=expected_at)
        return await self.result(entry.key, until and max(until - loop.time(), 0.0))

    async def _ask_once(self, task_id: str, key: str, status: str | None) -> Prediction:
        prediction = await self._calls.result_now(task_id, timeout=DEADLINE_QUERY_TIMEOUT_S)
        if prediction is None or not has_ended(prediction):
            status = prediction.status if prediction else status
            raise StillRunning(key, task_id, status)
        return prediction


def nothing_created(reason: str | None) -> Unavailable:
    """The error of a submission that created nothing and may be sent again."""
    return Unavailable(reason or "no reason is known", advice="the submission created nothing")
