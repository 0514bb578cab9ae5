"""The ledger on PostgreSQL, shared by any number of processes on any machines."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, TypeVar

from submitter.errors import BadSettings, LedgerMismatch, LedgerUnavailable
from submitter.ledger import postgres_words as words
from submitter.ledger import rows
from submitter.ledger.base import Entry, Intent, IntentWritten, Ledger, LimitReached, Limits, Result
from submitter.ledger.postgres_books import Books
from submitter.ledger.postgres_rows import COLUMNS, text
from submitter.prediction import Prediction
from submitter.storage import migrations
from submitter.storage.errors import (
    DriverMissing,
    StorageError,
    StorageMismatch,
    StorageValueError,
)
from submitter.storage.notify import PostgresNotifier, Subscribers, shared
from submitter.storage.postgres_batch import MAX_BATCH, BatchWriter
from submitter.storage.postgres_pool import (
    DEFAULT_SCHEMA,
    LOCK_TIMEOUT_S,
    MAX_IDLE_S,
    STATEMENT_TIMEOUT_S,
    Pool,
    PostgresConnection,
)

R = TypeVar("R")

MAX_PURGE_STEP = 500
"""Entries that one step of `purge` removes: the lock is held for a few milliseconds."""

_PACKAGE = "submitter.ledger"

Job = tuple[Callable[[Books], Awaitable[Any]], Sequence[str], Sequence[str]]
"""A write: its work, the keys of its entries, the ids of its tasks."""


class PostgresLedger(Ledger):
    """Ledger on PostgreSQL.

    It has one connection that writes and one that reads; a third LISTENs while anyone waits. One
    event loop at a time uses it.

    Args:
        url: `postgresql://user:password@host:5432/database`.
        schema: where the tables are; created if it is missing.
        pooler: a pooler in transaction mode stands before the server. Changes of other processes
            are then found by polling alone.
        poll: seconds between two looks for changes of other processes, while anyone waits; without
            a pooler the looks are for notifications that were missed.
        statement_timeout_s: limit for a statement, and for a transaction.
        lock_timeout_s: limit for a lock.
        max_idle_s: unused connections are closed after this time.
        max_batch: writes of one transaction.
        max_purge_step: entries that one step of `purge` removes.

    Raises:
        BadSettings: asyncpg is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = DEFAULT_SCHEMA,
        pooler: bool = False,
        poll: float = 1.0,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
        max_idle_s: float = MAX_IDLE_S,
        max_batch: int = MAX_BATCH,
        max_purge_step: int = MAX_PURGE_STEP,
    ) -> None:
        self._schema = schema
        self._max_purge_step = max_purge_step
        self._sql = statements(
            schema, lock_timeout_s=lock_timeout_s, statement_timeout_s=statement_timeout_s
        )
        self._channel = channel(schema)
        try:
            self._pool = Pool(
                url,
                pooler=pooler,
                size=2,
                max_reads=1,
                statement_timeout_s=statement_timeout_s,
                max_idle_s=max_idle_s,
            )
        except DriverMissing as error:
            raise BadSettings("WAVEHOOK_DATABASE", str(error)) from None
        self._writer = BatchWriter(self._pool, begin=self._sql["begin"], max_batch=max_batch)
        self._subscribers = shared((url, schema), Subscribers)
        self._notifier = PostgresNotifier(
            self._pool,
            self._changes,
            self._subscribers,
            poll_interval_s=poll,
            channel=None if pooler else self._channel,
        )
        self._opened = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        async with self._opening:
            if not self._opened:
                try:
                    await self._prepare()
                except BaseException as error:
                    await self._pool.close()
                    if isinstance(error, StorageError):
                        raise _ledger_error(error, "cannot open the ledger") from None
                    raise
                self._opened = True

    async def close(self) -> None:
        async with self._opening:
            self._opened = False
            await self._notifier.close()
            await self._writer.close()
            await self._pool.close()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        self._check()
        return self._notifier.subscribe(wake)

    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        return await self._write(
            lambda books: words.intend(books, intent, limits, now), keys=[intent.key]
        )

    async def accept(
        self,
        key: str,
        prediction: Prediction,
        now: float,
        *,
        expected_at: float,
        guessed: bool = False,
    ) -> Entry:
        return await self._write(
            lambda books: words.accept(
                books, key, prediction, now, expected_at=expected_at, guessed=guessed
            ),
            keys=[key],
            tasks=[prediction.id],
        )

    async def import_task(
        self, prediction: Prediction, now: float, *, expected_at: float, webhook: bool = False
    ) -> Entry:
        return await self._write(
            lambda books: words.import_task(
                books, prediction, now, expected_at=expected_at, webhook=webhook
            ),
            keys=[f"task:{prediction.id}"],
            tasks=[prediction.id],
        )

    async def mark_unknown(self, key: str, reason: str, now: float, *, ask_at: float) -> None:  # noqa: ARG002 - the port's
        await self._write(lambda books: words.mark_unknown(books, key, reason, ask_at), keys=[key])

    async def reject(self, key: str, reason: str, now: float) -> bool:
        return await self._write(lambda books: words.reject(books, key, reason, now), keys=[key])

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        keys = [None if one.key is None else text(one.key) for one in results]
        tasks = [text(one.prediction.id) for one in results]
        delivered = [one.delivered for one in results]
        ((any_news,),) = await self._read("to_finish", keys, tasks, delivered)
        if not any_news:
            return []
        return await self._write(
            lambda books: words.finish(books, results, now),
            keys=[key for key in keys if key is not None],
            tasks=tasks,
        )

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        found = await self._entries("find", [text(key) for key in keys])
        return {entry.key: entry for entry in found}

    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        found = await self._entries("find_tasks", [text(task_id) for task_id in task_ids])
        return {str(entry.task_id): entry for entry in found}

    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        return await self._entries("open_entries", limit)

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        return await self._entries("finished", after, limit)

    async def last_place(self) -> int:
        ((_, found),) = await self._read("head")
        return int(found)

    async def due(
        self, now: float, *, hold: float, limit: int = 100, keys: Sequence[str] | None = None
    ) -> list[Entry]:
        only = None if keys is None else [text(key) for key in keys]
        if only is None:
            found = await self._read("due", now, 1)
        else:
            found = await self._read("due_of", now, 1, only)
        if not found:
            return []
        return await self._write(lambda books: words.due(books, now, hold, limit, only))

    async def postpone(self, key: str, ask_at: float) -> None:
        await self._write(lambda books: words.postpone(books, key, ask_at), keys=[key])

    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        return await self._entries("undelivered", before, limit)

    async def pause(self, until: float) -> None:
        await self._write(lambda books: words.pause(books, until))

    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        return [seconds for (seconds,) in await self._read("durations", text(model), limit)]

    async def overdue(self, now: float) -> int:
        ((count,),) = await self._read("overdue", now)
        return int(count)

    async def uploaded(self, digest: str, *, after: float) -> str | None:
        found = await self._read("uploaded", text(digest), after)
        return found[0][0] if found else None

    async def upload(self, digest: str, url: str, now: float) -> None:
        await self._write(lambda books: words.upload(books, digest, url, now))

    async def purge(self, before: float) -> int:
        count, more = 0, True
        while more:
            step, more = await self._write(
                lambda books: words.purge(books, before, self._max_purge_step)
            )
            count += step
        return count

    async def _prepare(self) -> None:
        await migrations.migrate_postgres(self._pool, _PACKAGE, self._schema)

    async def _changes(self) -> int:
        ((found, _),) = await self._pool.fetch(self._sql["head"])
        return int(found)

    def _check(self) -> None:
        if not self._opened:
            raise LedgerUnavailable("the ledger is not open")

    async def _write(
        self,
        work: Callable[[Books], Awaitable[R]],
        *,
        keys: Sequence[str] = (),
        tasks: Sequence[str] = (),
    ) -> R:
        self._check()
        answer: R
        try:
            answer, changes = await self._writer.submit(self._transact, (work, keys, tasks))
        except StorageError as error:
            raise _ledger_error(error) from None
        self._subscribers.announce(changes)
        return answer

    async def _transact(
        self, connection: PostgresConnection, jobs: list[Job]
    ) -> list[tuple[Any, int]]:
        books = Books(connection, self._sql)
        await books.load(
            list(chain.from_iterable(keys for _, keys, _ in jobs)),
            list(chain.from_iterable(tasks for _, _, tasks in jobs)),
        )
        answers = [await work(books) for work, _, _ in jobs]
        await books.save(self._channel)
        return [(answer, books.changes) for answer in answers]

    async def _read(self, name: str, *values: object) -> Sequence[Any]:
        self._check()
        try:
            return await self._pool.fetch(self._sql[name], *values)
        except StorageError as error:
            raise _ledger_error(error) from None

    async def _entries(self, name: str, *values: object) -> list[Entry]:
        return [rows.read(found) for found in await self._read(name, *values)]


def channel(schema: str) -> str:
    """The channel that changes are announced on: the schema's own, and of a valid length."""
    return f"wavehook_ledger_{sha256(schema.encode()).hexdigest()[:16]}"


def statements(
    schema: str,
    *,
    lock_timeout_s: float = LOCK_TIMEOUT_S,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
) -> dict[str, str]:
    """The named statements, for a schema."""
    values = migrations.postgres_names(schema) | {
        "columns": ", ".join(COLUMNS),
        "busy": f"{lock_timeout_s * 1000:.0f}",
        "limit": f"{statement_timeout_s * 1000:.0f}",
    }
    return migrations.statements(_PACKAGE, "postgres", values)


def _ledger_error(
    error: StorageError, failure: str = "the ledger cannot be used now"
) -> LedgerUnavailable:
    """The ledger's error for one of the database engine."""
    if isinstance(error, StorageMismatch):
        return LedgerMismatch(str(error), error.found, error.expected)
    if isinstance(error, StorageValueError):
        failure = "the ledger cannot store this"
    return LedgerUnavailable(f"{failure}: {error}")
