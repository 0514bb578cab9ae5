"""One connection to PostgreSQL: made when it is needed, and made anew when it was lost."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeVar

from submitter.ledger.postgres_errors import Lost, driver, failures, unavailable, unreachable

R = TypeVar("R")

CONNECT = 5.0
"""Seconds to connect."""

LIMIT = 15.0
"""Seconds for all that is done in one run."""

IDLE = 60.0
"""Seconds after which a firewall may have forgotten a connection, so that it is tried first."""

PROBE = 2.0
"""Seconds of such a try."""


class Connection(Protocol):
    """What the ledger needs of asyncpg's."""

    async def fetch(self, query: str, *args: Any) -> list[Any]:
        """All rows."""
        ...

    async def fetchrow(self, query: str, *args: Any) -> Any:
        """The first row, or None."""
        ...

    async def execute(self, query: str, *args: Any) -> str:
        """One statement, or several without arguments."""
        ...

    async def add_listener(self, channel: str, callback: Callable[..., None]) -> None:
        """LISTEN."""
        ...

    async def close(self, *, timeout: float | None = None) -> None:
        """End it with a last word."""
        ...

    def terminate(self) -> None:
        """End it without."""
        ...

    def is_closed(self) -> bool:
        """Whether it has ended."""
        ...


class Line:
    """The connection, for one job at a time; it follows its user to another event loop.

    Args:
        url: the address, which may hold a password.
        pooler: a transaction-mode pooler stands in between: nothing outlives a transaction.
        prepare: called with each new connection.
    """

    def __init__(
        self,
        url: str,
        *,
        pooler: bool,
        prepare: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._url = url
        self._pooler = pooler
        self._prepare = prepare
        self._connection: Connection | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._used_at = 0.0

    async def run(
        self, work: Callable[[Connection], Awaitable[R]], *, begin: str | None = None
    ) -> R:
        """Do something with the connection, and after a loss before the commit once more.

        Args:
            work: the job; what it raises itself is passed on, and rolls back.
            begin: begins the transaction around it; without, each statement is one.

        Raises:
            Refused: one of the values cannot be stored.
            LedgerUnavailable: the database cannot be used now.
        """
        kept = self._kept() is not None
        try:
            return await self._run(work, begin)
        except Lost:
            if not kept:
                raise
        return await self._run(work, begin)

    async def close(self) -> None:
        """Let go of the connection; `run` makes a new one."""
        connection, self._connection = self._kept(), None
        if connection is not None:
            with contextlib.suppress(*failures(driver())):
                await connection.close(timeout=PROBE)

    async def _run(self, work: Callable[[Connection], Awaitable[R]], begin: str | None) -> R:
        connection = await self._connected()
        committing = False
        try:
            async with asyncio.timeout(LIMIT):
                if begin is None:
                    answer = await work(connection)
                else:
                    await connection.execute(begin)
                    answer = await work(connection)
                    committing = True
                    await connection.execute("COMMIT")
        except failures(driver()) as error:
            lost = connection.is_closed()
            self._drop()
            raise unavailable(error, lost=lost, committing=committing) from None
        except BaseException:
            # The job's own error, or a cancel: what it did ends with the connection.
            self._drop()
            raise
        self._used_at = time.time()
        return answer

    async def _connected(self) -> Connection:
        connection = self._kept()
        if connection is not None and (await self._answers(connection)):
            return connection
        self._drop()
        asyncpg = driver()
        expected: tuple[type[Exception], ...] = (*failures(asyncpg), ValueError)
        cached = 0 if self._pooler else 100
        try:
            async with asyncio.timeout(CONNECT):
                made: Connection = await asyncpg.connect(self._url, statement_cache_size=cached)
                self._connection, self._loop = made, asyncio.get_running_loop()
                if self._prepare is not None:
                    await self._prepare(made)
        except expected as error:
            self._drop()
            raise unreachable(self._url, error) from None
        except BaseException:
            self._drop()
            raise
        return made

    async def _answers(self, connection: Connection) -> bool:
        """Whether it is still there; asked only where it may have been forgotten."""
        if connection.is_closed():
            return False
        if abs(time.time() - self._used_at) < IDLE:
            return True
        try:
            async with asyncio.timeout(PROBE):
                await connection.execute("SELECT 1")
        except failures(driver()):
            return False
        return True

    def _kept(self) -> Connection | None:
        """The connection, unless its event loop is another one, and with it gone."""
        if self._loop is not asyncio.get_running_loop():
            self._drop()
        return self._connection

    def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            # The loop may be closed.
            with contextlib.suppress(RuntimeError):
                connection.terminate()
