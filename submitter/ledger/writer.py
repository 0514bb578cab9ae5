"""One thread that owns the writing connection; what waits together shares one commit."""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from submitter.errors import LedgerUnavailable

R = TypeVar("R")

GROUP = 256
"""Jobs of one transaction at most."""

REST = 0.01
"""Seconds between two transactions, at most, and no longer than the first held the lock. SQLite has
no queue for it: who waits looks ever more rarely, and one who takes it again at once would keep the
receiver from its inbox.
"""


class _Job:
    __slots__ = ("answer", "error", "future", "loop", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], Any]) -> None:
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.answer: Any = None
        self.error: Exception | None = None

    def resolve(self) -> None:
        # Whoever asked may have been cancelled since; what was asked is done all the same.
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.answer)


class Writer:
    """The thread.

    Args:
        connect: opens the connection, in autocommit mode; called on the thread, and again after
            a failure.
        before_commit: reads what `committed` is told; on the thread, as that.
        committed: called after each commit.
    """

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        before_commit: Callable[[sqlite3.Connection], int],
        committed: Callable[[int], None],
    ) -> None:
        self._connect = connect
        self._before_commit = before_commit
        self._committed = committed
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._held = 0.0
        self._thread = threading.Thread(target=self._run, name="wavehook-ledger", daemon=True)
        self._thread.start()

    def submit(self, work: Callable[[sqlite3.Connection], R]) -> asyncio.Future[R]:
        """Have a job done in the next transaction.

        The future fails with LedgerUnavailable where the database would not do it, and with
        whatever `work` raised for this job alone.
        """
        job = _Job(work)
        self._queue.put(job)
        return job.future

    async def close(self) -> None:
        """Finish what was submitted, then end the thread; called once, and as the last."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        more = True
        while more:
            jobs, more = self._next()
            if not jobs:
                break
            self._do(jobs)
            for job in jobs:
                # The loop may be closed by now where the process is ending.
                with contextlib.suppress(RuntimeError):
                    job.loop.call_soon_threadsafe(job.resolve)
            time.sleep(min(self._held, REST))
        self._disconnect()

    def _next(self) -> tuple[list[_Job], bool]:
        """Wait for jobs, and take all that have come since."""
        jobs: list[_Job] = []
        job = self._queue.get()
        with contextlib.suppress(Empty):
            while job is not None:
                jobs.append(job)
                if len(jobs) == GROUP:
                    break
                job = self._queue.get_nowait()
        return jobs, job is not None

    def _do(self, jobs: list[_Job]) -> None:
        try:
            self._transact(jobs)
        except Exception as error:  # noqa: BLE001 - handed to whoever asked
            # Locked, full, read-only, gone: as true for each of them.
            self._disconnect()
            for job in jobs:
                job.error = _unavailable(error)

    def _transact(self, jobs: list[_Job]) -> None:
        connection = self._connection = self._connection or self._connect()
        connection.execute("BEGIN IMMEDIATE")
        locked_at = time.monotonic()
        for job in jobs:
            connection.execute("SAVEPOINT job")
            try:
                job.answer = job.work(connection)
            except Exception as error:
                if isinstance(error, sqlite3.OperationalError) or not connection.in_transaction:
                    raise
                connection.execute("ROLLBACK TO job")
                job.error = _unavailable(error)
            connection.execute("RELEASE job")
        told = self._before_commit(connection)
        connection.execute("COMMIT")
        self._held = time.monotonic() - locked_at
        self._committed(told)

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()


def _unavailable(error: Exception) -> Exception:
    if isinstance(error, sqlite3.Error):
        return LedgerUnavailable(f"the ledger cannot be written now: {error}")
    return error
