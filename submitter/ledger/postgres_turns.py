"""Jobs that take turns: those that gather while others are done are then done together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from submitter.errors import LedgerUnavailable
from submitter.ledger.postgres_errors import Refused

GROUP = 256
"""Jobs that are done together at most."""


class Job:
    """Something that somebody waits for.

    Attributes:
        future: tells the answer; who waits for it may be cancelled, and the job is done all the
            same.
        answer: once it is done.
    """

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.answer: Any = None

    def resolve(self) -> None:
        """Tell the answer."""
        if not self.future.done():
            self.future.set_result(self.answer)

    def fail(self, error: Exception) -> None:
        """Tell what went wrong."""
        if not self.future.done():
            if isinstance(error, LedgerUnavailable):
                error = LedgerUnavailable(str(error))
            self.future.set_exception(error)


J = TypeVar("J", bound=Job)


class Turns(Generic[J]):
    """A task that does what was asked, for as long as anything is.

    Args:
        do: does several jobs, all or none.
    """

    def __init__(self, do: Callable[[list[J]], Awaitable[None]]) -> None:
        self._do = do
        self._waiting: list[J] = []
        self._task: asyncio.Task[None] | None = None

    async def ask(self, job: J) -> Any:
        """Have a job done, and wait for it."""
        if self._task is not None and self._task.get_loop() is not asyncio.get_running_loop():
            # Nobody waits any more for what was asked on a loop that is gone.
            self._task, self._waiting = None, []
        self._waiting.append(job)
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="wavehook-ledger")
        return await job.future

    async def end(self) -> None:
        """Wait until all is done that was asked."""
        if self._task is not None and self._task.get_loop() is asyncio.get_running_loop():
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        jobs: list[J] = []
        try:
            while self._waiting:
                jobs, self._waiting = self._waiting[:GROUP], self._waiting[GROUP:]
                await self._together(jobs)
        finally:
            # Only where this task was cancelled is anybody left.
            left, self._waiting, self._task = jobs + self._waiting, [], None
            for job in left:
                job.fail(LedgerUnavailable("the program is ending"))

    async def _together(self, jobs: list[J]) -> None:
        try:
            await self._do(jobs)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            if len(jobs) > 1 and _of_one(error):
                for job in jobs:
                    await self._together([job])
            else:
                for job in jobs:
                    job.fail(error)
        else:
            for job in jobs:
                job.resolve()


def _of_one(error: Exception) -> bool:
    """Whether one job alone is to blame."""
    return isinstance(error, Refused) or not isinstance(error, LedgerUnavailable)
