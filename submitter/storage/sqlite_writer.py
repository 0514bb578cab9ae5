"""SQLite engine under inbox and ledger: one writer thread with group commit, one reader, WAL.

A `SQLiteDatabase` is one file, which any number of processes on one machine may use. Its promises,
kept for both ports by `tests/contract/test_storage_sqlite.py`:

1. A write is atomic and, once its future has a result, survives a power cut (`synchronous=FULL`).
   Everything submitted while the last transaction ran shares the next one, and its fsync.
2. A request that cannot be written fails alone; the others of its group are committed.
3. Reads wait for no writer, and a write waits for another process at most `busy_timeout_s`.
4. A locked file, a full disk or a read-only file fails the request with `StorageUnavailable`, and
   nothing of it is stored; the next request tries again on a new connection.
5. A file that was removed is not created again, empty and readable by all.
6. A cancelled caller's write is done all the same; `close` finishes what was submitted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from submitter.storage import migrations
from submitter.storage.errors import StorageUnavailable

A = TypeVar("A")
R = TypeVar("R")
BulkWrite = Callable[[sqlite3.Connection, list[A]], Sequence[R]]
"""Does all requests of one kind inside a transaction; one answer each, in order.

A statement that writes many rows gives up the interpreter lock once, not once a row, and so takes
little from the event loop.
"""

BUSY_TIMEOUT_S = 10.0
"""Wait for another process's write; the sender of a webhook gets a 503 then."""

MAX_GROUP_SIZE = 1024
"""Requests of one transaction, about, so that the first need not wait for all of a flood."""

HAND_OVER_SIZE = 32
"""Requests after which a long turn of the event loop hands over, so that both threads have work."""

CACHE_KIB = 4096
"""Page cache of each connection; the system's own cache stands behind it."""

CHECKPOINT_REQUESTS = 1000
"""Writes between two checkpoints."""

MAX_WAL_PAGES = 16_384
"""Pages of 4 KiB after which the writer itself checkpoints: large bodies, or a failing thread."""

_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"

_REMEDIES = {
    sqlite3.SQLITE_FULL: "free disk space",
    sqlite3.SQLITE_IOERR: "check the disk and its free space",
    sqlite3.SQLITE_READONLY: "make the file and its folder writable",
    sqlite3.SQLITE_BUSY: "another process holds the write lock",
    sqlite3.SQLITE_CANTOPEN: "check that the file and its folder exist and may be read",
    sqlite3.SQLITE_NOTADB: "name another file in WAVEHOOK_DATABASE",
    sqlite3.SQLITE_CORRUPT: "restore the file from a backup",
}
"""Remedies by SQLite's primary result code (https://www.sqlite.org/rescode.html)."""


class SQLiteDatabase:
    """One SQLite file with its writer thread and its reading connection.

    Args:
        path: of the file; created if it is missing, its folder is not.
        package: whose migrations bring it up to date (see `migrations`).
        busy_timeout_s: wait for another process's lock.
        max_group_size: requests of one transaction, about.
        max_rest_s: pause between two transactions, at most, and no longer than the first held the
            lock. SQLite has no queue for its lock: a process that waits for it looks ever more
            rarely, and a writer that takes it again at once would keep the others out.
        on_connect: called with each new connection, to set it up further.
    """

    def __init__(
        self,
        path: Path,
        package: str,
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        max_group_size: int = MAX_GROUP_SIZE,
        max_rest_s: float = 0.0,
        on_connect: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self.path = path
        self._package = package
        self._busy_timeout_s = busy_timeout_s
        self._max_group_size = max_group_size
        self._max_rest_s = max_rest_s
        self._on_connect = on_connect
        self._writer: _Writer | None = None
        self._reader: _Reader | None = None
        self._opening = asyncio.Lock()

    @property
    def is_open(self) -> bool:
        """True between `open` and `close`."""
        return self._writer is not None

    async def open(self) -> None:
        """Create or migrate the file, and start the threads. May be called twice.

        Raises:
            StorageUnavailable: the file cannot be opened.
            StorageMismatch: a newer version or another program made it.
        """
        async with self._opening:
            if self._writer is not None:
                return
            reader = _Reader(self.connect)
            try:
                await reader.prepare(self._prepare)
            except BaseException as error:
                await reader.close()
                if isinstance(error, sqlite3.Error):
                    raise self._unavailable(error) from None
                raise
            self._reader = reader
            self._writer = _Writer(
                self.connect, self._unavailable, self._max_group_size, self._max_rest_s
            )

    async def close(self) -> None:
        """Finish what was submitted, and end the threads. May be called twice."""
        async with self._opening:
            writer, self._writer = self._writer, None
            reader, self._reader = self._reader, None
            if writer is not None and reader is not None:
                try:
                    await writer.close()
                finally:
                    await reader.close()

    def write(self, bulk: BulkWrite[A, R], argument: A) -> asyncio.Future[R]:
        """Have a request done in the next transaction.

        The future fails with StorageUnavailable if the database does not take it, and with
        whatever `bulk` raised for this request alone.

        Raises:
            StorageUnavailable: the database is not open.
        """
        if self._writer is None:
            raise StorageUnavailable("the database is not open")
        return self._writer.submit(bulk, argument)

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run a function that reads, on the reading thread.

        Raises:
            StorageUnavailable: the database is not open, or does not answer.
        """
        if self._reader is None:
            raise StorageUnavailable("the database is not open")
        try:
            return await self._reader.run(work)
        except sqlite3.Error as error:
            raise self._unavailable(error) from None

    def connect(self) -> sqlite3.Connection:
        """A new connection in autocommit mode, to a file that exists; for use on any thread."""
        connection = self._connect()
        try:
            _use_wal(connection, self._busy_timeout_s)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB:d}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {MAX_WAL_PAGES:d}")
            if self._on_connect is not None:
                self._on_connect(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        # `mode=rw`: a file that somebody removed is not created again.
        return sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )

    def _prepare(self) -> None:
        # Bodies and inputs hold prompts: a new file, and with it its log, is for its owner alone.
        with contextlib.suppress(OSError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
        database = str(self.path)
        with contextlib.closing(self._connect()) as connection:
            # Before the switch to WAL, which would change another program's file. In one
            # transaction: another process may migrate the file between two statements.
            connection.execute("BEGIN")
            pending = migrations.pending_sqlite(connection, self._package, database)
        if pending:
            with contextlib.closing(self.connect()) as connection:
                migrations.migrate_sqlite(connection, self._package, database)

    def _unavailable(self, error: sqlite3.Error) -> StorageUnavailable:
        remedy = _REMEDIES.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
        return StorageUnavailable(f"{self.path}: {error}" + (f"; {remedy}" if remedy else ""))


class _Reader:
    """One thread with a reading connection, which is made anew after a failure."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wavehook-sqlite-reader")

    async def prepare(self, work: Callable[[], None]) -> None:
        """Do something on the thread before the first connection."""
        await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def run(self, work: Callable[[sqlite3.Connection], R]) -> R:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def close(self) -> None:
        """Finish what was asked, then end the thread."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._disconnect)
        self._thread.shutdown()

    def _run(self, work: Callable[[sqlite3.Connection], R]) -> R:
        try:
            if self._connection is None:
                self._connection = self._connect()
                self._connection.execute("PRAGMA query_only = ON")
            return work(self._connection)
        except sqlite3.Error:
            self._disconnect()
            raise

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        _close(connection)


class _Request:
    __slots__ = ("answer", "argument", "bulk", "error", "future")

    def __init__(
        self, bulk: BulkWrite[Any, Any], argument: Any, future: asyncio.Future[Any]
    ) -> None:
        self.bulk = bulk
        self.argument = argument
        self.future = future
        self.answer: Any = None
        self.error: Exception | None = None


class _Writer:
    """The thread that owns the writing connection."""

    def __init__(
        self,
        connect: Callable[[], sqlite3.Connection],
        unavailable: Callable[[sqlite3.Error], StorageUnavailable],
        max_group_size: int,
        max_rest_s: float,
    ) -> None:
        self._connect = connect
        self._unavailable = unavailable
        self._max_group_size = max_group_size
        self._max_rest_s = max_rest_s
        self._checkpointer = _Checkpointer(connect)
        self._connection: sqlite3.Connection | None = None
        self._queue: SimpleQueue[list[_Request] | None] = SimpleQueue()
        self._turn: list[_Request] = []
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held_s = 0.0
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="wavehook-sqlite", daemon=True)
        self._thread.start()

    def submit(self, bulk: BulkWrite[A, R], argument: A) -> asyncio.Future[R]:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._hand_over()
            self._loop = loop
        future: asyncio.Future[R] = loop.create_future()
        if self._closed:
            future.set_exception(StorageUnavailable("the database is closed"))
            return future
        # One hand-over for each turn of the event loop: waking the thread for each request makes
        # both of them wait for the interpreter lock.
        if not self._turn:
            loop.call_soon(self._hand_over)
        self._turn.append(_Request(bulk, argument, future))
        if len(self._turn) == HAND_OVER_SIZE:
            self._hand_over()
        return future

    async def close(self) -> None:
        """Finish what was submitted, then end the thread; called once."""
        self._closed = True
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    def _hand_over(self) -> None:
        if self._turn:
            turn, self._turn = self._turn, []
            self._queue.put(turn)

    def _run(self) -> None:
        more = True
        while more:
            requests, more = self._next()
            if requests:
                self._do(requests)
                for loop, group in groupby(requests, lambda request: request.future.get_loop()):
                    # The loop may be closed by now if the process is ending.
                    with contextlib.suppress(RuntimeError):
                        loop.call_soon_threadsafe(_resolve, list(group))
                if self._connection is not None:
                    self._checkpointer.after(self._connection, len(requests))
                if more and self._max_rest_s:
                    time.sleep(min(self._held_s, self._max_rest_s))
        self._disconnect()
        self._checkpointer.close()

    def _next(self) -> tuple[list[_Request], bool]:
        """Wait for requests, and take all that were handed over since."""
        requests: list[_Request] = []
        turn = self._queue.get()
        with contextlib.suppress(Empty):
            while turn is not None:
                requests += turn
                if len(requests) >= self._max_group_size:
                    break
                turn = self._queue.get_nowait()
        return requests, turn is not None

    def _do(self, requests: list[_Request]) -> None:
        try:
            self._transact(requests)
        except Exception as error:  # noqa: BLE001 - handed to the callers
            self._undo(error)
            # Locked, full, read-only, gone: true of the whole group, and of each request alone.
            if len(requests) > 1 and not isinstance(error, sqlite3.OperationalError):
                for request in requests:
                    self._do([request])
                return
            if isinstance(error, sqlite3.Error):
                error = self._unavailable(error)
            for request in requests:
                request.error = error

    def _transact(self, requests: list[_Request]) -> None:
        connection = self._connection = self._connection or self._connect()
        kinds: dict[BulkWrite[Any, Any], list[_Request]] = {}
        for request in requests:
            kinds.setdefault(request.bulk, []).append(request)
        connection.execute("BEGIN IMMEDIATE")
        locked_at = time.monotonic()
        for bulk, same in kinds.items():
            answers = bulk(connection, [request.argument for request in same])
            for request, answer in zip(same, answers, strict=True):
                request.answer = answer
        connection.execute("COMMIT")
        self._held_s = time.monotonic() - locked_at

    def _undo(self, error: Exception) -> None:
        """Leave no transaction open; after an error of the database, no connection either."""
        if isinstance(error, sqlite3.Error):
            self._disconnect()
        elif self._connection is not None and self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        _close(connection)


def _resolve(requests: list[_Request]) -> None:
    for request in requests:
        # The caller may have been cancelled since; the request was done all the same.
        if request.future.done():
            continue
        if request.error is not None:
            request.future.set_exception(request.error)
        else:
            request.future.set_result(request.answer)


class _Checkpointer:
    """Copies the write-ahead log into the database on a thread, so that no write waits for it.

    A checkpoint that the writer runs itself, as SQLite does by default, holds up a whole group.
    Another connection copies all but what is written meanwhile; the writer copies that rest, and
    its next transaction begins the log anew (https://www.sqlite.org/wal.html#ckpt).
    """

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._connection: sqlite3.Connection | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wavehook-sqlite-checkpoint")
        self._copying: Future[None] | None = None
        self._count = 0

    def after(self, writer: sqlite3.Connection, requests: int) -> None:
        """Called by the writer after each of its transactions, with its number of requests."""
        self._count += requests
        if self._copying is None:
            if self._count >= CHECKPOINT_REQUESTS:
                self._count = 0
                self._copying = self._thread.submit(self._copy)
        elif self._copying.done():
            self._copying = None
            # The writes are committed: a checkpoint that fails is tried again by the next one.
            with contextlib.suppress(sqlite3.Error):
                writer.execute(_CHECKPOINT)

    def close(self) -> None:
        """End the thread; called by the writer as its last."""
        self._thread.shutdown()
        _close(self._connection)

    def _copy(self) -> None:
        # As above; and the writer's own checkpoint stands behind it.
        with contextlib.suppress(sqlite3.Error):
            if self._connection is None:
                self._connection = self._connect()
            self._connection.execute(_CHECKPOINT)


def _use_wal(connection: sqlite3.Connection, busy_timeout_s: float) -> None:
    """Switch to WAL; SQLite's own busy timeout does not cover two processes that switch at once."""
    deadline = time.monotonic() + busy_timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _close(connection: sqlite3.Connection | None) -> None:
    if connection is not None:
        with contextlib.suppress(sqlite3.Error):
            connection.close()
