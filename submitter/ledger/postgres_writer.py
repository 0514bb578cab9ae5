"""The writing connection: what waits together shares one transaction."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from submitter.ledger.postgres_books import Books
from submitter.ledger.postgres_line import Connection, Line
from submitter.ledger.postgres_turns import Job, Turns

R = TypeVar("R")


class _Write(Job):
    def __init__(
        self, work: Callable[[Books], Awaitable[Any]], keys: Sequence[str], tasks: Sequence[str]
    ) -> None:
        super().__init__()
        self.work = work
        self.keys = keys
        self.tasks = tasks


class Writer:
    """Does jobs on the books.

    Args:
        line: the connection, this writer's own.
        sql: the named statements.
        channel: where others are told of changes.
        committed: called with the counter of changes after each commit.
    """

    def __init__(
        self, line: Line, sql: Mapping[str, str], channel: str, committed: Callable[[int], None]
    ) -> None:
        self._line = line
        self._sql = sql
        self._channel = channel
        self._committed = committed
        self._turns = Turns(self._do)

    async def write(
        self,
        work: Callable[[Books], Awaitable[R]],
        *,
        keys: Sequence[str] = (),
        tasks: Sequence[str] = (),
    ) -> R:
        """Do a job in the next transaction; it may be done anew where that one failed.

        Args:
            work: the job.
            keys: of the entries that it looks at.
            tasks: ids of tasks whose entries it looks at.

        Raises:
            LedgerUnavailable: the database would not do it.
        """
        answer: R = await self._turns.ask(_Write(work, keys, tasks))
        return answer

    async def close(self) -> None:
        """Finish what was asked, and let go of the connection."""
        await self._turns.end()
        await self._line.close()

    async def _do(self, jobs: list[_Write]) -> None:
        changes = await self._line.run(partial(self._transact, jobs), begin=self._sql["begin"])
        self._committed(changes)

    async def _transact(self, jobs: list[_Write], connection: Connection) -> int:
        books = Books(connection, self._sql)
        await books.load(
            list(chain.from_iterable(job.keys for job in jobs)),
            list(chain.from_iterable(job.tasks for job in jobs)),
        )
        for job in jobs:
            job.answer = await job.work(books)
        await books.save(self._channel)
        return books.changes
