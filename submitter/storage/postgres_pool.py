"""Connections to one PostgreSQL: made when needed, bounded in time, made again after a cut.

Whatever the server or the way to it does comes out as `StoreUnavailable`, without the password.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from receiver.errors import SettingsError, StoreRefused, StoreUnavailable
from submitter.postgres import EXPECTED, advice, place

CONNECT = 5.0
"""Seconds for a connection to be there."""

COMMAND = 10.0
"""Seconds for a statement; the sender of a webhook gets a 503 then."""

IDLE = 45.0
"""Seconds after which an unused connection is closed: sooner than what lies between cuts it."""

SIZE = 5
"""Connections of one process: adding, claiming, working, and two that read. One more listens."""

READS = 2
"""Reads at once, so that they take no connection from what writes."""

REMEMBERED = 64
"""Connections of which it is known when they were used; more than there are at one time."""

GONE = ("08", "57P")
"""Classes of errors that come with a connection's end; as `OURS`."""

OURS = ("22", "23", "40", "42P06", "54")
"""Classes of errors that are of what was asked, or of two at once; every other is the server's
(https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


class Connection(Protocol):
    """What is used of a connection of asyncpg."""

    async def fetch(self, query: str, *values: Any) -> Sequence[Any]:
        """Rows."""

    async def fetchrow(self, query: str, *values: Any) -> Any:
        """The first row."""

    async def fetchval(self, query: str, *values: Any, timeout: float | None = None) -> Any:
        """The first value of the first row."""

    async def execute(self, query: str, *values: Any, timeout: float | None = None) -> str:
        """No rows."""

    async def add_listener(self, channel: str, heard: Any) -> None:
        """Call `heard` with each notification."""

    def add_termination_listener(self, ended: Any) -> None:
        """Call `ended` with the connection once it is no more."""

    def transaction(self) -> contextlib.AbstractAsyncContextManager[Any]:
        """A transaction around a block."""

    def terminate(self) -> None:
        """Cut it off at once."""


def driver() -> Any:
    """The module asyncpg.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        return import_module("asyncpg")
    except ImportError:
        raise SettingsError(
            ["WAVEHOOK_DATABASE: postgresql:// needs asyncpg; install wavehook[postgres]"]
        ) from None


class Lost(StoreUnavailable):
    """A connection ended in the middle of its work; another may do it."""


class Link:
    """The connections.

    Args:
        url: `postgresql://user:password@host:port/database`, with all that asyncpg understands.
        pooler: there is a pooler in between that gives out the server's connections by the
            transaction; nothing may last longer then.
        clock: Unix seconds, which go on while the process is frozen.
    """

    def __init__(self, url: str, *, pooler: bool, clock: Callable[[], float] = time.time) -> None:
        self._driver = driver()
        self._url = url
        self._pooler = pooler
        self._clock = clock
        self._pool: Any = None
        self._reads: asyncio.Semaphore | None = None
        self._used: dict[int, float] = {}

    async def open(self) -> None:
        """Let connections be made; makes none."""
        self._reads = asyncio.Semaphore(READS)
        options: dict[str, Any] = {"statement_cache_size": 0} if self._pooler else {}
        self._pool = await self._driver.create_pool(
            self._url,
            min_size=0,
            max_size=SIZE,
            max_inactive_connection_lifetime=IDLE,
            timeout=CONNECT,
            command_timeout=COMMAND,
            reset=_nothing,
            **options,
        )

    async def close(self) -> None:
        """Give all connections back; those that do not end in time are cut off."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(CONNECT):
                await pool.close()
        except self.errors:
            pool.terminate()

    async def connect(self) -> Connection:
        """A connection of its own, for whoever asks to end it.

        Raises:
            StoreUnavailable: there is none to be had.
        """
        try:
            connection: Connection = await self._driver.connect(
                self._url, timeout=CONNECT, command_timeout=COMMAND
            )
        except Exception as error:  # noqa: BLE001 - told in one way, whatever it was
            raise self.word(error) from None
        return connection

    @contextlib.asynccontextmanager
    async def use(self) -> AsyncIterator[Connection]:
        """A connection for one piece of work.

        Raises:
            Lost: it was cut.
            StoreUnavailable: there is none, or the server does not do it now.
            Exception: what was asked cannot be done at all, or met another transaction that
                wanted the same (`clashes`).
        """
        pool = self._pool
        if pool is None:
            raise StoreUnavailable("the store is not open")
        try:
            connection, pid = await self._take(pool)
        except Exception as error:  # noqa: BLE001 - told in one way, whatever it was
            raise self.word(error) from None
        try:
            if self._pooler:
                # A statement with its values is sent in two parts, and only a transaction brings
                # both to the same connection of the server.
                async with connection.transaction():
                    yield connection
            else:
                yield connection
        except BaseException as error:
            if not self._theirs(error):
                lost = self._end(connection) or self._is_end(error)
                if isinstance(error, Exception):
                    word = self.word(error)
                    raise (Lost(str(word)) if lost else word) from None
            raise
        finally:
            self._used[pid] = self._clock()
            if len(self._used) > REMEMBERED:
                del self._used[next(iter(self._used))]
            await pool.release(connection, timeout=CONNECT)

    async def read(self, sql: str, *values: Any) -> Sequence[Any]:
        """The rows of one statement.

        Raises:
            StoreUnavailable: as `use`.
        """
        if self._reads is None:
            raise StoreUnavailable("the store is not open")
        async with self._reads:
            try:
                with contextlib.suppress(Lost):
                    return await self._fetch(sql, *values)
                return await self._fetch(sql, *values)
            except self.errors as error:
                raise self.word(error) from None

    async def _fetch(self, sql: str, *values: Any) -> Sequence[Any]:
        async with self.use() as connection:
            return await connection.fetch(sql, *values)

    async def _take(self, pool: Any) -> tuple[Any, int]:
        """A connection that nothing in between can have forgotten, and the number of its session.

        While a process is frozen (F41), the timer stands still that closes what is not used.
        """
        while True:
            connection = await pool.acquire(timeout=CONNECT)
            pid = connection.get_server_pid()
            used_at = self._used.pop(pid, None)
            if used_at is None or abs(self._clock() - used_at) <= IDLE:
                return connection, pid
            connection.terminate()
            await pool.release(connection, timeout=CONNECT)

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """All that the driver raises, and the system below it."""
        return (
            OSError,
            self._driver.PostgresError,
            self._driver.InterfaceError,
            # A cut in the middle of its own steps.
            self._driver.InternalClientError,
        )

    @property
    def clashes(self) -> tuple[type[Exception], ...]:
        """What may go well the next time: two that waited for each other, and one had to go."""
        return (self._driver.TransactionRollbackError,)

    @property
    def taken(self) -> tuple[type[Exception], ...]:
        """A name that another has taken a moment before."""
        return self._driver.DuplicateSchemaError, self._driver.UniqueViolationError

    def word(self, error: Exception) -> StoreUnavailable:
        """What to tell of an error: where, and why, and what to do; no values, no password."""
        todo = None
        if isinstance(error, self._driver.PostgresError):
            # Its text in full shows the values that were sent.
            said = str(getattr(error, "message", None) or type(error).__name__)
            todo = advice(str(getattr(error, "sqlstate", None)))
        elif isinstance(error, TimeoutError):
            said = "it does not answer"
        elif isinstance(error, OSError):
            said = error.strerror or type(error).__name__
        elif isinstance(error, self._driver.DataError):
            said = "a value is not of a kind that it can store"
        elif isinstance(error, ValueError):
            # Its text may show a part of the URL.
            said, todo = "the URL cannot be used", f"expected {EXPECTED}, with known options"
        else:
            said = str(error) or type(error).__name__
        reason = f"{place(self._url)}: {said}"
        return StoreRefused(reason, todo) if todo else StoreUnavailable(reason)

    def _theirs(self, error: BaseException) -> bool:
        """Whether an error is of what was asked, and not of the server or the way to it."""
        if isinstance(error, self._driver.PostgresError):
            return str(getattr(error, "sqlstate", None)).startswith(OURS)
        if isinstance(error, self.errors):
            return isinstance(error, self._driver.DataError)
        return not isinstance(error, asyncio.CancelledError)

    def _is_end(self, error: BaseException) -> bool:
        """Whether the connection has ended, rather than that it does not answer."""
        gone = str(getattr(error, "sqlstate", None)).startswith(GONE)
        return gone or (isinstance(error, OSError) and not isinstance(error, TimeoutError))

    def _end(self, connection: Any) -> bool:
        """Cut a connection off; True where it had ended already."""
        try:
            ended: bool = connection.is_closed()
            connection.terminate()
        except self._driver.InterfaceError:
            # The pool has taken it back.
            return True
        return ended


async def _nothing(connection: Any) -> None:
    """No statement of ours leaves anything behind in a session."""
