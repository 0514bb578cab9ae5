"""PostgreSQL connections for inbox and ledger: one pool, one set of limits, one table of errors.

A `Pool` belongs to one event loop at a time and connects when a connection is first needed. Its
promises, kept for both ports by `tests/contract/test_storage_postgres.py`:

1. Every wait is bounded: connecting, a statement, a whole transaction, closing.
2. A connection that has ended, or was idle for long enough to be forgotten by a firewall, is
   replaced before it is used.
3. After a failover, connections to a server that has become read-only are dropped, and the call is
   repeated at once on a new connection (`ConnectionLost` is what `BatchWriter` and `fetch` repeat).
4. A transaction whose COMMIT was sent is never repeated: its result is unknown.
5. Errors are those of `submitter.storage.errors`; none shows a password or a stored value.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Callable, Sequence
from importlib import import_module
from typing import Any, Protocol

from submitter.storage.errors import (
    ConnectionLost,
    DriverMissing,
    StorageConflict,
    StorageError,
    StorageRefused,
    StorageUnavailable,
    StorageValueError,
)

DEFAULT_SCHEMA = "wavehook"

CONNECT_TIMEOUT_S = 5.0
"""Limit for a new connection to one host."""

STATEMENT_TIMEOUT_S = 10.0
"""Limit for a statement, and for a whole transaction; the sender of a webhook gets a 503 then."""

LOCK_TIMEOUT_S = 8.0
"""Limit for a lock, below that of a statement, so that the server's own message is seen."""

MAX_IDLE_S = 45.0
"""Unused connections are closed after this time: firewalls forget them after a minute or more."""

URL_FORMAT = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"

_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,47}")
"""Needs no quotes in a statement, and fits into the name of a channel."""

_HOST = r"(?:[\w.%-]+|\[[0-9a-fA-F:.]+\])(?::\d{1,5})?"
_URL = re.compile(
    rf"""postgres(?:ql)?://(?:[^@/?\#\s]*@)?
         ((?:{_HOST}(?:,{_HOST})*)?  # the hosts
          (?:/[\w.%-]*)?)            # the database
         (?:\?[^@\#\s]*)?""",
    re.VERBOSE,
)
"""A URL of any other shape may have a part of its password where the host should be."""

# SQLSTATEs and their classes: https://www.postgresql.org/docs/current/errcodes-appendix.html.

_READ_ONLY = "25006"
"""The server became a standby, or read-only: a failover left this connection behind."""

_GONE = ("08", "57P", "25P03", "25P04", _READ_ONLY)
"""The connection has ended (25P03 and 25P04 are session timeouts), or is useless from now on."""

_CONFLICT = ("40", "42P06")
"""Deadlocks, serialization failures, and a schema that another created at the same time."""

_BAD_VALUE = ("22", "23", "54")
"""Faults of the request itself: its data, a constraint, a size limit of the server."""

_REMEDIES = {
    "28": "correct user, password and sslmode in WAVEHOOK_DATABASE",
    "3D000": "create the database, or name another in WAVEHOOK_DATABASE",
    "42704": "remove the option that the server does not know from WAVEHOOK_DATABASE",
    "42501": "grant this user what the README says, or let the owner run `wavehook migrate`",
}
"""Remedies for errors that a retry does not solve."""


def is_postgres(url: str) -> bool:
    """True for the URL of a PostgreSQL database, valid or not."""
    return url.startswith(("postgresql://", "postgres://"))


def url_fault(url: str) -> str | None:
    """The fault of a URL that cannot be a PostgreSQL's; never repeats a part of it."""
    found = _URL.fullmatch(url)
    if found is None:
        return f"expected {URL_FORMAT}, with %-codes for characters such as @ : / ? # in a password"
    ports = re.findall(r":(\d+)", re.sub(r"\[[^\]]*\]", "", found[1]))
    valid = all(0 < int(port) < 65536 for port in ports)
    return None if valid else "expected a port from 1 to 65535"


def schema_name_fault(schema: str) -> str | None:
    """The fault of a name that a schema must not have."""
    if _SCHEMA_NAME.fullmatch(schema) and not schema.startswith("pg_"):
        return None
    return (
        "expected lower-case letters, digits and underscores, at most 48, not beginning with pg_ "
        "or a digit"
    )


def server_address(url: str) -> str:
    """The hosts and the database of a URL, for people: never the user's name and password."""
    found = _URL.fullmatch(url)
    return f"PostgreSQL at {found[1]}" if found and found[1] else "PostgreSQL"


class PostgresConnection(Protocol):
    """The part of an asyncpg connection that inbox and ledger use."""

    async def fetch(self, query: str, *values: Any) -> Sequence[Any]:
        """Return all rows."""

    async def fetchrow(self, query: str, *values: Any) -> Any:
        """Return the first row."""

    async def fetchval(self, query: str, *values: Any, timeout: float | None = None) -> Any:
        """Return the first value of the first row."""

    async def execute(self, query: str, *values: Any, timeout: float | None = None) -> str:
        """Run one statement, or several without values."""

    async def add_listener(self, channel: str, callback: Any) -> None:
        """LISTEN on a channel."""

    def add_termination_listener(self, callback: Any) -> None:
        """Call `callback` with the connection once it has ended."""

    def is_closed(self) -> bool:
        """True once the connection has ended."""

    def is_in_transaction(self) -> bool:
        """True between BEGIN and its end."""

    async def close(self, *, timeout: float | None = None) -> None:
        """End the connection by the protocol."""

    def terminate(self) -> None:
        """Cut the connection off at once."""


class _Session:
    """A connection of the pool."""

    __slots__ = ("connection", "generation", "used_at")

    def __init__(self, connection: PostgresConnection, generation: int) -> None:
        self.connection = connection
        self.generation = generation
        self.used_at = 0.0


class Pool:
    """Connections to one PostgreSQL database, shared by the tasks of one event loop.

    Used from another loop, it forgets the connections of the earlier one, whose loop is gone, and
    makes new ones. Closed, it may be used again.

    Args:
        url: `postgresql://user:password@host:port/database`, with all options of asyncpg. Of
            several hosts, the one that last worked is tried first, and after a failover the next.
        pooler: a pooler in transaction mode stands before the server: every piece of work runs in a
            transaction, and no statement is prepared.
        size: connections at the same time, besides those of `connect`.
        max_reads: calls of `fetch` at the same time, so that writes find a connection free.
        connect_timeout_s: limit for connecting to one host, and for closing the pool.
        statement_timeout_s: limit for a statement and for a transaction.
        max_idle_s: unused connections are closed after this time.
        clock: Unix seconds, which go on while the process is frozen, unlike the loop's timers.

    Raises:
        DriverMissing: asyncpg is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        pooler: bool,
        size: int,
        max_reads: int,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        max_idle_s: float = MAX_IDLE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._driver = _driver()
        self._driver_errors: tuple[type[Exception], ...] = (
            OSError,
            self._driver.PostgresError,
            self._driver.InterfaceError,
            # A connection that was cut in the middle of the driver's own steps.
            self._driver.InternalClientError,
        )
        self._urls = _urls_of_hosts(url)
        self._address = server_address(url)
        self._pooler = pooler
        self._size = size
        self._max_reads = max_reads
        self._connect_timeout_s = connect_timeout_s
        self._statement_timeout_s = statement_timeout_s
        self._max_idle_s = max_idle_s
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._free = asyncio.Semaphore(size)
        self._reads = asyncio.Semaphore(max_reads)
        self._idle: list[_Session] = []
        self._in_use: set[_Session] = set()
        self._separate: set[PostgresConnection] = set()
        self._generation = 0
        self._idle_timer: asyncio.TimerHandle | None = None

    @contextlib.asynccontextmanager
    async def use(
        self, begin: str | None = None, *, timeout_s: float | None = None
    ) -> AsyncIterator[PostgresConnection]:
        """A connection for one piece of work.

        Args:
            begin: statements that begin a transaction, which is committed at the end of the work;
                without, each statement commits by itself (not behind a pooler).
            timeout_s: limit for the transaction, instead of the pool's.

        Raises:
            ConnectionLost: the connection ended before the work was committed.
            StorageConflict: the work met another transaction.
            StorageValueError: a value cannot be stored.
            StorageUnavailable: no connection, no answer in time, or the server refuses.
        """
        self._use_running_loop()
        if begin is None and self._pooler:
            # A statement with values is sent in two parts, and only a transaction brings both to
            # the same connection of the server.
            begin = "BEGIN"
        async with self._free:
            session = await self._take()
            committing = False
            try:
                if begin is None:
                    yield session.connection
                else:
                    async with asyncio.timeout(timeout_s or self._statement_timeout_s):
                        await session.connection.execute(begin)
                        yield session.connection
                        committing = True
                        await session.connection.execute("COMMIT")
            except self._driver_errors as error:
                raise await self._failure(session, error, committing=committing) from None
            except Exception:
                await self._roll_back(session)
                raise
            except BaseException:
                # A cancelled statement may still run.
                session.connection.terminate()
                raise
            finally:
                self._put_back(session)

    async def fetch(self, sql: str, *values: Any) -> Sequence[Any]:
        """The rows of one reading statement; repeated once after a lost connection.

        Raises:
            StorageError: as `use`.
        """
        self._use_running_loop()
        async with self._reads:
            with contextlib.suppress(ConnectionLost):
                return await self._fetch(sql, *values)
            return await self._fetch(sql, *values)

    async def listen(
        self, channel: str, notified: Callable[[str], None], ended: Callable[[], None]
    ) -> PostgresConnection:
        """A connection of its own that LISTENs, which `expire` and `close` end too.

        Args:
            channel: its name.
            notified: called with the payload of each notification.
            ended: called once the connection has ended.

        Raises:
            StorageUnavailable: the server cannot be reached, or refuses.
        """
        self._use_running_loop()
        connection = await self._connect()
        self._separate.add(connection)
        connection.add_termination_listener(self._separate.discard)
        connection.add_termination_listener(lambda _: ended())
        try:
            await connection.add_listener(channel, lambda *values: notified(values[3]))
        except self._driver_errors as error:
            connection.terminate()
            raise StorageUnavailable(f"{self._address}: {self._message(error)}") from None
        return connection

    async def check(self, connection: PostgresConnection) -> None:
        """Cut a connection of `listen` off if its server does not answer, or is read-only by now.

        A failover leaves such a connection open on the old server; the pool's own connections are
        dropped with it.
        """
        try:
            # "on" on a standby too.
            read_only = await connection.fetchval(
                "SHOW transaction_read_only", timeout=self._connect_timeout_s
            )
        except self._driver_errors:
            connection.terminate()
        else:
            if read_only == "on":
                self.expire()

    def expire(self) -> None:
        """Drop all connections, since their server has become read-only; those in use at their end.

        A standby answers reads, with data that grow old, and tells no listener of changes.
        """
        self._generation += 1
        self._urls = [*self._urls[1:], self._urls[0]]
        _terminate([*(session.connection for session in self._idle), *self._separate])
        self._idle.clear()

    async def close(self) -> None:
        """Close all connections; those that do not end in time are cut off."""
        self._use_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                for _ in range(self._size):
                    await self._free.acquire()
                for session in self._idle:
                    with contextlib.suppress(*self._driver_errors):
                        await session.connection.close()
        except TimeoutError:
            pass
        finally:
            self._forget_connections()

    async def _fetch(self, sql: str, *values: Any) -> Sequence[Any]:
        async with self.use() as connection:
            return await connection.fetch(sql, *values)

    def _use_running_loop(self) -> None:
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self._forget_connections()
            self._loop = loop

    def _forget_connections(self) -> None:
        """Cut all connections off, and begin as a new pool does."""
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        sessions = [*self._idle, *self._in_use]
        _terminate([*(session.connection for session in sessions), *self._separate])
        self._free = asyncio.Semaphore(self._size)
        self._reads = asyncio.Semaphore(self._max_reads)
        self._idle, self._in_use, self._separate = [], set(), set()
        self._generation += 1
        self._loop = self._idle_timer = None

    async def _take(self) -> _Session:
        """A connection that is open, and that no firewall has forgotten."""
        session = None
        while self._idle and session is None:
            candidate = self._idle.pop()
            # While a process is frozen, the timer that closes idle connections stands still.
            if abs(self._clock() - candidate.used_at) > self._max_idle_s:
                candidate.connection.terminate()
            elif not candidate.connection.is_closed():
                session = candidate
        if session is None:
            generation = self._generation
            session = _Session(await self._connect(), generation)
        self._in_use.add(session)
        return session

    def _put_back(self, session: _Session) -> None:
        self._in_use.discard(session)
        if session.connection.is_closed():
            return
        if session.generation != self._generation:
            session.connection.terminate()
            return
        session.used_at = self._clock()
        self._idle.append(session)
        if self._idle_timer is None:
            self._start_idle_timer()

    def _start_idle_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._idle_timer = loop.call_later(self._max_idle_s, self._close_idle)

    def _close_idle(self) -> None:
        self._idle_timer = None
        oldest = self._clock() - self._max_idle_s
        _terminate([each.connection for each in self._idle if each.used_at <= oldest])
        self._idle = [each for each in self._idle if each.used_at > oldest]
        if self._idle:
            self._start_idle_timer()

    async def _connect(self) -> PostgresConnection:
        *others, last = self._urls
        for url in others:
            with contextlib.suppress(StorageUnavailable):
                return await self._connect_to(url)
        return await self._connect_to(last)

    async def _connect_to(self, url: str) -> PostgresConnection:
        options: dict[str, Any] = {"statement_cache_size": 0} if self._pooler else {}
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection: PostgresConnection = await self._driver.connect(
                    url, command_timeout=self._statement_timeout_s, **options
                )
        except Exception as error:  # noqa: BLE001 - the driver raises whatever its parts raise
            message = f"{self._address}: {self._message(error)}"
            remedy = _remedy(error)
            if isinstance(error, ValueError):
                # Its message may show a part of the URL.
                message = f"{self._address}: the URL cannot be used"
                remedy = (
                    f"write it as {URL_FORMAT}, with %-codes for special characters, and with "
                    "options that PostgreSQL has"
                )
            failure = StorageRefused(message, remedy) if remedy else StorageUnavailable(message)
            raise failure from None
        self._urls.remove(url)
        self._urls.insert(0, url)
        return connection

    async def _failure(
        self, session: _Session, error: Exception, *, committing: bool
    ) -> StorageError:
        """The engine's error for the driver's; the connection is kept only where it is sound."""
        state = _sqlstate(error)
        message = f"{self._address}: {self._message(error)}"
        if isinstance(error, ValueError) or state.startswith(_BAD_VALUE):
            await self._roll_back(session)
            return StorageValueError(message)
        if state.startswith(_CONFLICT):
            await self._roll_back(session)
            return StorageConflict(message)
        timed_out = isinstance(error, TimeoutError)
        lost = session.connection.is_closed() or isinstance(error, OSError)
        session.connection.terminate()
        # Of several that fail in this way only the first is news.
        if state == _READ_ONLY and session.generation == self._generation:
            self.expire()
        if (lost or state.startswith(_GONE)) and not timed_out and not committing:
            return ConnectionLost(message)
        remedy = _remedy(error)
        return StorageRefused(message, remedy) if remedy else StorageUnavailable(message)

    async def _roll_back(self, session: _Session) -> None:
        connection = session.connection
        try:
            if not connection.is_closed() and connection.is_in_transaction():
                await connection.execute("ROLLBACK")
        except self._driver_errors:
            connection.terminate()

    def _message(self, error: Exception) -> str:
        if isinstance(error, TimeoutError):
            return "no answer in time"
        if isinstance(error, self._driver.PostgresError):
            # The error's full text shows the values that were sent.
            return str(getattr(error, "message", None) or type(error).__name__)
        if isinstance(error, OSError):
            return error.strerror or str(error) or type(error).__name__
        if isinstance(error, ValueError):
            return "a value is not of a type that the database can store"
        return str(error) or type(error).__name__


def _driver() -> Any:
    try:
        return import_module("asyncpg")
    except ImportError:
        raise DriverMissing("postgresql:// needs asyncpg; install wavehook[postgres]") from None


def _urls_of_hosts(url: str) -> list[str]:
    """A URL for each of its hosts: the driver's time limit would be for all of them together."""
    found = _URL.fullmatch(url)
    hosts = found[1].partition("/")[0] if found else ""
    if not found or "," not in hosts:
        return [url]
    start = found.start(1)
    return [url[:start] + host + url[start + len(hosts) :] for host in hosts.split(",")]


def _sqlstate(error: Exception) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def _remedy(error: Exception) -> str | None:
    state = _sqlstate(error)
    return next((remedy for prefix, remedy in _REMEDIES.items() if state.startswith(prefix)), None)


def _terminate(connections: Sequence[PostgresConnection]) -> None:
    for connection in connections:
        # The event loop of the connection may be closed.
        with contextlib.suppress(RuntimeError):
            connection.terminate()
