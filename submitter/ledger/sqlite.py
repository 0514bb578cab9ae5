"""Ledger on one SQLite file, by default the receiver's own: for one machine, any processes.

The engine is `submitter.storage.sqlite_writer`. The tables' names begin with `ledger_`, so that the
receiver's inbox may be in the same file; either of the two may create it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from submitter.errors import LedgerMismatch, LedgerUnavailable
from submitter.ledger import rows
from submitter.ledger.base import RATE_WINDOW_S, Entry, Limits, Result
from submitter.ledger.rows import SQLLedger
from submitter.ledger.transitions import MAX_PURGE_STEP, Operation, Transaction, run_now
from submitter.storage import migrations
from submitter.storage.errors import StorageError, StorageMismatch
from submitter.storage.notify import ChangePoller, shared
from submitter.storage.sqlite_writer import BUSY_TIMEOUT_S, MAX_GROUP_SIZE, SQLiteDatabase

R = TypeVar("R")

MAX_REST_S = 0.01
"""Pause of the writer between two transactions, so that the receiver gets to its inbox."""

_PACKAGE = "submitter.ledger"

SQL = migrations.statements(_PACKAGE, "sqlite")


class SQLiteLedger(SQLLedger):
    """Ledger on one SQLite file.

    Args:
        path: of the file; created if it is missing, its folder is not.
        poll: seconds between two looks for changes of other processes, while anyone waits.
        busy_timeout_s: wait for another process's write.
        max_group_size: writes of one transaction.
        max_purge_step: entries that one transaction of `purge` removes.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        poll: float = 0.05,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        max_group_size: int = MAX_GROUP_SIZE,
        max_purge_step: int = MAX_PURGE_STEP,
    ) -> None:
        self.path = Path(path)
        self.max_purge_step = max_purge_step
        self._poll = poll
        self._database = SQLiteDatabase(
            self.path,
            _PACKAGE,
            busy_timeout_s=busy_timeout_s,
            max_group_size=max_group_size,
            max_rest_s=MAX_REST_S,
        )
        file = SQLiteDatabase(self.path.resolve(), _PACKAGE)
        self._poller = shared(file.path, lambda: ChangePoller(file.connect, SQL["head"]))
        self._subscriptions: set[Callable[[], None]] = set()

    async def open(self) -> None:
        try:
            await self._database.open()
        except StorageError as error:
            raise _ledger_error(error, "cannot open the ledger") from None

    async def close(self) -> None:
        while self._subscriptions:
            self._subscriptions.pop()()
        await self._database.close()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        if not self._database.is_open:
            raise LedgerUnavailable("the ledger is not open")
        unsubscribe = self._poller.subscribe(wake, self._poll)
        self._subscriptions.add(unsubscribe)

        def end() -> None:
            self._subscriptions.discard(unsubscribe)
            unsubscribe()

        return end

    async def _transact(self, operation: Operation[R]) -> R:
        answer: R
        try:
            answer, changes = await self._database.write(_run_operations, operation)
        except StorageError as error:
            raise _ledger_error(error, "the ledger cannot be written now:") from None
        self._poller.announce(changes)
        return answer

    async def _select(self, convert: Callable[[Any], R], name: str, **values: Any) -> list[R]:
        parameters = {key: _encoded(value) for key, value in values.items()}
        try:
            return await self._database.read(
                lambda connection: [
                    convert(row) for row in connection.execute(SQL[name], parameters).fetchall()
                ]
            )
        except StorageError as error:
            raise _ledger_error(error, "the ledger cannot be read now:") from None

    async def _worth_finishing(self, results: Sequence[Result]) -> bool:
        found = [
            [one.key and rows.text(one.key), rows.text(one.prediction.id), one.delivered]
            for one in results
        ]
        (worth,) = await self._select(lambda row: bool(row[0]), "to_finish", results=found)
        return worth


class _SQLiteTransaction(Transaction):
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def head(self) -> tuple[int, int, float]:
        """The counter of changes, the last place, and the end of the pause."""
        changes, place, paused_until = self._connection.execute(SQL["head"]).fetchone()
        return changes, place, paused_until

    async def find(self, key: str) -> Entry | None:
        found = self._select("find", keys=[key])
        return found[0] if found else None

    async def holders(self, task_id: str) -> list[Entry]:
        return self._select("holders", task_id=task_id)

    async def due(self, now: float, limit: int, keys: Sequence[str] | None) -> list[Entry]:
        if keys is None:
            return self._select("due", now=now, limit=limit)
        return self._select("due_of", now=now, limit=limit, keys=keys)

    async def usage(self, limits: Limits, now: float) -> tuple[int, float | None]:
        count, sent_at = 0, None
        if limits.in_flight is not None:
            values = {"limit": limits.in_flight}
            (count,) = self._connection.execute(SQL["count_open"], values).fetchone()
        if limits.rate is not None:
            window = {"now": now, "window": RATE_WINDOW_S, "nth": limits.rate}
            found = self._connection.execute(SQL["sent"], window).fetchone()
            sent_at = found[0] if found else None
        return count, sent_at

    async def insert(self, entry: Entry) -> None:
        self._connection.execute(SQL["write"], rows.inserted(entry))
        self._connection.execute(SQL["changed"])

    async def update(
        self, entry: Entry, *, rejected_at: float | None = None, notify: bool = True
    ) -> None:
        self._connection.execute(SQL["change"], rows.updated(entry, rejected_at))
        if notify:
            self._connection.execute(SQL["changed"])

    async def next_place(self) -> int:
        self._connection.execute(SQL["take_place"])
        return self.head()[1]

    async def paused_until(self) -> float:
        return self.head()[2]

    async def pause(self, until: float) -> None:
        self._connection.execute(SQL["pause"], {"until": until})

    async def upload(self, digest: str, url: str, now: float) -> None:
        self._connection.execute(
            SQL["upload"], {"digest": rows.text(digest), "url": rows.text(url), "now": now}
        )

    async def purge(self, before: float, limit: int) -> tuple[int, bool]:
        values = {"before": before, "limit": limit}
        entries = self._connection.execute(SQL["purge_entries"], values).rowcount
        uploads = self._connection.execute(SQL["purge_uploads"], values).rowcount
        return entries, limit in (entries, uploads)

    def _select(self, name: str, **values: Any) -> list[Entry]:
        parameters = {key: _encoded(value) for key, value in values.items()}
        return [rows.read(row) for row in self._connection.execute(SQL[name], parameters)]


def _run_operations(
    connection: sqlite3.Connection, operations: list[Operation[Any]]
) -> list[tuple[Any, int]]:
    """The operations of one group; each answer comes with the counter of changes."""
    transaction = _SQLiteTransaction(connection)
    answers = [run_now(operation.run(transaction)) for operation in operations]
    changes, _, _ = transaction.head()
    return [(answer, changes) for answer in answers]


def _encoded(value: Any) -> Any:
    """A value as SQLite takes it: a list is one JSON parameter."""
    if isinstance(value, str):
        return rows.text(value)
    if isinstance(value, Sequence):
        return rows.json_text([_encoded(each) if isinstance(each, str) else each for each in value])
    return value


def _ledger_error(error: StorageError, failure: str) -> LedgerUnavailable:
    """The ledger's error for one of the database engine."""
    if isinstance(error, StorageMismatch):
        return LedgerMismatch(str(error), error.found, error.expected)
    return LedgerUnavailable(f"{failure} {error}")
