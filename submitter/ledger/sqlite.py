"""The ledger on one SQLite file, by default the receiver's own: for one machine, any processes.

Writes go through one thread (`writer`), reads through another connection, so that neither waits
for the other (WAL). `synchronous=FULL`: what a method has returned from survives a power cut.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from submitter.errors import LedgerUnavailable
from submitter.ledger import rows
from submitter.ledger import sqlite_books as books
from submitter.ledger.base import Entry, Intent, IntentWritten, Ledger, LimitReached, Limits, Result
from submitter.ledger.reader import Reader
from submitter.ledger.schema import connect, prepare
from submitter.ledger.writer import Writer
from submitter.prediction import Prediction
from submitter.storage.notify import ChangePoller, shared

R = TypeVar("R")

PURGE_STEP = 500
"""Entries of one step of `purge`: a few milliseconds of the writer's time."""


class SQLiteLedger(Ledger):
    """See `Ledger` for the promises.

    Args:
        path: of the database file; made where there is none, its folder is not.
        poll: seconds between two looks for changes of other processes, while anybody waits.
    """

    def __init__(self, path: str | Path, *, poll: float = 0.05) -> None:
        self.path = Path(path)
        self._poll = poll
        file = self.path.resolve()
        self._poller = shared(file, lambda: ChangePoller(partial(connect, file), books.SQL["head"]))
        self._writer: Writer | None = None
        self._reader: Reader | None = None
        self._opening = asyncio.Lock()
        self._subscriptions: set[Callable[[], None]] = set()

    async def open(self) -> None:
        """See `Ledger.open`."""
        async with self._opening:
            if self._writer is not None:
                return
            try:
                await asyncio.to_thread(prepare, self.path)
            except sqlite3.Error as error:
                raise LedgerUnavailable(f"cannot open the ledger {self.path}: {error}") from None
            self._reader = Reader(self.path)
            self._writer = Writer(
                partial(connect, self.path), books.changes_so_far, self._poller.announce
            )

    async def close(self) -> None:
        """See `Ledger.close`."""
        async with self._opening:
            while self._subscriptions:
                self._subscriptions.pop()()
            writer, self._writer = self._writer, None
            reader, self._reader = self._reader, None
            if writer and reader:
                try:
                    await writer.close()
                finally:
                    await reader.close()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See `Ledger.subscribe`."""
        self._open_writer()
        unsubscribe = self._poller.subscribe(wake, self._poll)
        self._subscriptions.add(unsubscribe)

        def end() -> None:
            self._subscriptions.discard(unsubscribe)
            unsubscribe()

        return end

    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        """See `Ledger.intend`."""
        return await self._write(lambda to: books.intend(to, intent, limits, now))

    async def accept(
        self,
        key: str,
        prediction: Prediction,
        now: float,
        *,
        expected_at: float,
        guessed: bool = False,
    ) -> Entry:
        """See `Ledger.accept`."""
        return await self._write(
            lambda to: books.accept(
                to, key, prediction, now, expected_at=expected_at, guessed=guessed
            )
        )

    async def import_task(
        self, prediction: Prediction, now: float, *, expected_at: float, webhook: bool = False
    ) -> Entry:
        """See `Ledger.adopt`."""
        return await self._write(
            lambda to: books.import_task(
                to, prediction, now, expected_at=expected_at, webhook=webhook
            )
        )

    async def mark_unknown(self, key: str, reason: str, now: float, *, ask_at: float) -> None:  # noqa: ARG002 - the port's
        """See `Ledger.doubt`."""
        await self._write(lambda to: books.mark_unknown(to, key, reason, ask_at))

    async def reject(self, key: str, reason: str, now: float) -> bool:
        """See `Ledger.reject`."""
        return await self._write(lambda to: books.reject(to, key, reason, now))

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        """See `Ledger.finish`; it writes only where a result is of an entry, and is news."""
        found = [(one.key, one.prediction.id, one.delivered) for one in results]
        ((any_news,),) = await self._read("to_finish", {"results": rows.results(found)})
        if not any_news:
            return []
        return await self._write(lambda to: books.finish(to, results, now))

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """See `Ledger.find`."""
        found = await self._entries("find", {"keys": rows.texts(keys)})
        return {entry.key: entry for entry in found}

    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        """See `Ledger.find_tasks`; one that is no guess goes first."""
        found = await self._entries("find_tasks", {"task_ids": rows.texts(task_ids)})
        return {str(entry.task_id): entry for entry in found}

    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        """See `Ledger.open_entries`."""
        return await self._entries("open_entries", {"limit": limit})

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        """See `Ledger.finished`."""
        return await self._entries("finished", {"after": after, "limit": limit})

    async def last_place(self) -> int:
        """See `Ledger.last_place`."""
        place: int = (await self._read("head", {}))[0][1]
        return place

    async def due(
        self, now: float, *, hold: float, limit: int = 100, keys: Sequence[str] | None = None
    ) -> list[Entry]:
        """See `Ledger.due`; it writes only where something is due."""
        only = None if keys is None else rows.texts(keys)
        name = "due" if keys is None else "due_of"
        if not await self._read(name, {"now": now, "limit": 1, "keys": only}):
            return []
        return await self._write(lambda to: books.due(to, now, hold, limit, only))

    async def postpone(self, key: str, ask_at: float) -> None:
        """See `Ledger.postpone`."""
        await self._execute("postpone", {"key": rows.text(key), "ask_at": ask_at})

    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        """See `Ledger.undelivered`."""
        return await self._entries("undelivered", {"before": before, "limit": limit})

    async def pause(self, until: float) -> None:
        """See `Ledger.pause`."""
        await self._write(lambda to: books.pause(to, until))

    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        """See `Ledger.durations`; the latest first."""
        found = await self._read("durations", {"model": rows.text(model), "limit": limit})
        return [seconds for (seconds,) in found]

    async def overdue(self, now: float) -> int:
        """See `Ledger.overdue`."""
        count: int = (await self._read("overdue", {"now": now}))[0][0]
        return count

    async def uploaded(self, digest: str, *, after: float) -> str | None:
        """See `Ledger.uploaded`."""
        found = await self._read("uploaded", {"digest": digest, "after": after})
        return found[0][0] if found else None

    async def upload(self, digest: str, url: str, now: float) -> None:
        """See `Ledger.upload`."""
        await self._execute("upload", {"digest": digest, "url": url, "now": now})

    async def purge(self, before: float) -> int:
        """See `Ledger.purge`."""
        count, more = 0, True
        while more:
            step, more = await self._write(lambda to: books.purge(to, before, PURGE_STEP))
            count += step
        return count

    def _open_writer(self) -> Writer:
        if self._writer is None:
            raise LedgerUnavailable("the ledger is not open")
        return self._writer

    async def _write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        return await self._open_writer().submit(work)

    async def _execute(self, name: str, values: Mapping[str, Any]) -> None:
        await self._write(lambda to: to.execute(books.SQL[name], values))

    async def _read(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        if self._reader is None:
            raise LedgerUnavailable("the ledger is not open")
        return await self._reader.fetch(lambda row: row, books.SQL[name], values)

    async def _entries(self, name: str, values: Mapping[str, Any]) -> list[Entry]:
        if self._reader is None:
            raise LedgerUnavailable("the ledger is not open")
        return await self._reader.fetch(rows.read, books.SQL[name], values)
