"""The reading connection, which also hears of others' changes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from submitter.ledger.postgres_line import Connection, Line
from submitter.ledger.postgres_turns import Job, Turns


class _Read(Job):
    def __init__(self, sql: str, values: Sequence[Any]) -> None:
        super().__init__()
        self.sql = sql
        self.values = values


class Reader:
    """Reads what is committed.

    Args:
        line: the connection, this reader's own.
    """

    def __init__(self, line: Line) -> None:
        self._line = line
        self._turns = Turns(self._do)

    async def fetch(self, sql: str, *values: object) -> list[Any]:
        """All rows of a statement.

        Raises:
            LedgerUnavailable: the database cannot be read now.
        """
        found: list[Any] = await self._turns.ask(_Read(sql, values))
        return found

    async def close(self) -> None:
        """Finish what was asked, and let go of the connection."""
        await self._turns.end()
        await self._line.close()

    async def _do(self, jobs: list[_Read]) -> None:
        # Whoever was cancelled needs no answer.
        wanted = [job for job in jobs if not job.future.done()]
        await self._line.run(partial(_read, wanted))


async def _read(jobs: list[_Read], connection: Connection) -> None:
    for job in jobs:
        job.answer = await connection.fetch(job.sql, *job.values)
