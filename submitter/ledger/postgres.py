"""The ledger on PostgreSQL, shared by any number of processes on any machines."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from typing import Any, TypeVar

from submitter.errors import BadSettings, LedgerMismatch, LedgerUnavailable
from submitter.ledger import rows
from submitter.ledger.base import RATE_WINDOW_S, Entry, Limits, Result
from submitter.ledger.rows import COLUMNS, MUTABLE_COLUMNS, SQLLedger
from submitter.ledger.transitions import MAX_PURGE_STEP, Operation, Transaction
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

_PACKAGE = "submitter.ledger"

_Row = Sequence[Any]
"""The values of `COLUMNS`."""

_NEW_SEQ = 2**62
"""The order of arrival of entries that have none yet: after all others."""

_KEY, _TASK_ID = COLUMNS.index("key"), COLUMNS.index("task_id")


class PostgresLedger(SQLLedger):
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
        self.max_purge_step = max_purge_step
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
                    await migrations.migrate_postgres(self._pool, _PACKAGE, self._schema)
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

    async def _changes(self) -> int:
        ((found, _),) = await self._pool.fetch(self._sql["head"])
        return int(found)

    def _check(self) -> None:
        if not self._opened:
            raise LedgerUnavailable("the ledger is not open")

    async def _transact(self, operation: Operation[R]) -> R:
        self._check()
        answer: R
        try:
            answer, changes = await self._writer.submit(self._run_operations, operation)
        except StorageError as error:
            raise _ledger_error(error) from None
        self._subscribers.announce(changes)
        return answer

    async def _run_operations(
        self, connection: PostgresConnection, operations: list[Operation[Any]]
    ) -> list[tuple[Any, int]]:
        transaction = _PostgresTransaction(connection, self._sql)
        await transaction.load(
            list(chain.from_iterable(operation.keys for operation in operations)),
            list(chain.from_iterable(operation.tasks for operation in operations)),
        )
        answers = [await operation.run(transaction) for operation in operations]
        await transaction.save(self._channel)
        return [(answer, transaction.changes) for answer in answers]

    async def _select(self, convert: Callable[[Any], R], name: str, **values: Any) -> list[R]:
        self._check()
        try:
            found = await self._pool.fetch(self._sql[name], *map(_encoded, values.values()))
        except StorageError as error:
            raise _ledger_error(error) from None
        return [convert(row) for row in found]

    async def _worth_finishing(self, results: Sequence[Result]) -> bool:
        (worth,) = await self._select(
            lambda row: bool(row[0]),
            "to_finish",
            keys=[result.key for result in results],
            tasks=[result.prediction.id for result in results],
            delivered=[result.delivered for result in results],
        )
        return worth


class _PostgresTransaction(Transaction):
    """The entries that a group of jobs is about: loaded once, changed in memory, written once.

    It holds the lock of all writers, so that limits hold and places come in order of commits.

    Attributes:
        changes: the counter of changes that subscribers are told of.
    """

    def __init__(self, connection: PostgresConnection, sql: Mapping[str, str]) -> None:
        self._connection = connection
        self._sql = sql
        self._rows: dict[str, _Row] = {}
        self._keys_by_task: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._unsaved: dict[str, bool] = {}
        self._head: tuple[int, int, float] = (0, 0, 0.0)
        self.changes, self._place, self._paused_until = self._head

    async def load(self, keys: Sequence[str], task_ids: Sequence[str]) -> None:
        """Take the lock, and find the entries."""
        head = await self._connection.fetchrow(self._sql["lock_head"])
        self.changes, self._place, self._paused_until = self._head = (head[0], head[1], head[2])
        if keys or task_ids:
            await self._load("load", keys, task_ids)

    async def save(self, channel: str) -> None:
        """Write everything that is not written, and notify other processes."""
        await self._flush()
        head = (self.changes, self._place, self._paused_until)
        if head != self._head:
            payload = str(self.changes) if self.changes != self._head[0] else None
            await self._connection.fetch(self._sql["save_head"], *head, channel, payload)

    async def find(self, key: str) -> Entry | None:
        found = self._rows.get(_text(key))
        return rows.read(found) if found else None

    async def holders(self, task_id: str) -> list[Entry]:
        held = [self._rows[key] for key in self._keys_by_task[_text(task_id)]]
        return [rows.read(row) for row in sorted(held, key=lambda row: int(row[0]))]

    async def due(self, now: float, limit: int, keys: Sequence[str] | None) -> list[Entry]:
        if keys is None:
            return await self._load("due", now, limit)
        return await self._load("due_of", now, limit, keys)

    async def usage(self, limits: Limits, now: float) -> tuple[int, float | None]:
        ((count, sent_at),) = await self._fetch(
            "room",
            limits.in_flight or 0,
            max(limits.rate or 1, 1) - 1,
            now - RATE_WINDOW_S,
            now + RATE_WINDOW_S,
        )
        return count, sent_at

    async def insert(self, entry: Entry) -> None:
        self._put(entry, None, whole=True)
        self.changes += 1

    async def update(
        self, entry: Entry, *, rejected_at: float | None = None, notify: bool = True
    ) -> None:
        self._put(entry, rejected_at, whole=False)
        self.changes += notify

    async def next_place(self) -> int:
        self._place += 1
        return self._place

    async def paused_until(self) -> float:
        return self._paused_until

    async def pause(self, until: float) -> None:
        self._paused_until = until

    async def upload(self, digest: str, url: str, now: float) -> None:
        await self._fetch("upload", digest, url, now)

    async def purge(self, before: float, limit: int) -> tuple[int, bool]:
        entries = await self._fetch("purge_entries", before, limit)
        uploads = await self._fetch("purge_uploads", before, limit)
        for (key,) in entries:
            self._forget(key)
        return len(entries), limit in (len(entries), len(uploads))

    async def _load(self, name: str, *values: object) -> list[Entry]:
        found = await self._fetch(name, *values)
        for row in found:
            self._keep(row)
        return [rows.read(row) for row in found]

    async def _fetch(self, name: str, *values: object) -> Sequence[Any]:
        """Rows of a statement, which sees everything that was changed so far."""
        await self._flush()
        return await self._connection.fetch(self._sql[name], *map(_encoded, values))

    def _put(self, entry: Entry, rejected_at: float | None, *, whole: bool) -> None:
        before = self._rows.get(_text(entry.key))
        values = rows.inserted(entry) | rows.updated(entry, rejected_at)
        values["seq"] = before[0] if before else _NEW_SEQ + self.changes
        after = [_encoded(values[name]) for name in COLUMNS]
        self._keep(after)
        self._unsaved[after[_KEY]] = whole or self._unsaved.get(after[_KEY], False)

    def _keep(self, row: _Row) -> None:
        self._forget(row[_KEY])
        self._rows[row[_KEY]] = row
        if row[_TASK_ID] is not None:
            self._keys_by_task[row[_TASK_ID]][row[_KEY]] = None

    def _forget(self, key: str) -> None:
        if key in self._rows:
            self._keys_by_task[self._rows.pop(key)[_TASK_ID]].pop(key, None)

    async def _flush(self) -> None:
        unsaved, self._unsaved = self._unsaved, {}
        for name, columns, whole in (
            ("write", COLUMNS[1:], True),
            ("change", MUTABLE_COLUMNS, False),
        ):
            changed = [self._rows[key] for key, is_whole in unsaved.items() if is_whole is whole]
            if changed:
                places = [COLUMNS.index(column) for column in columns]
                arrays = [[row[place] for row in changed] for place in places]
                await self._connection.execute(self._sql[name], *arrays)


def _text(value: str) -> str:
    """A text that PostgreSQL can store: NUL becomes `?` too."""
    return rows.text(value).replace("\0", "?")


def _encoded(value: Any) -> Any:
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Sequence):
        return [_encoded(each) for each in value]
    return value


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
