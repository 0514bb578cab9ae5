"""The Ledger in a PostgreSQL database, which any number of processes on any machines share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from submitter.errors import LedgerMismatch, LedgerUnavailable
from submitter.ledger import postgres_words as words
from submitter.ledger import rows
from submitter.ledger.base import Entry, Intent, IntentWritten, Ledger, LimitReached, Limits, Result
from submitter.ledger.postgres_books import Books
from submitter.ledger.postgres_errors import Refused, driver
from submitter.ledger.postgres_line import Connection, Line
from submitter.ledger.postgres_reader import Reader
from submitter.ledger.postgres_rows import text
from submitter.ledger.postgres_schema import channel, prepare, statements
from submitter.ledger.postgres_watch import Watch, news
from submitter.ledger.postgres_writer import Writer
from submitter.postgres import SCHEMA
from submitter.prediction import Prediction

R = TypeVar("R")

PURGE_STEP = 500
"""Entries of one step of `purge`: a few milliseconds of everybody's time."""

_TRIES = 3
"""The inbox may make the same schema at the same time, but not for ever."""


class PostgresLedger(Ledger):
    """See `Ledger` for the promises.

    It has a connection to write and one to read. One event loop at a time uses it.

    Args:
        url: of the database, as `postgresql://user:password@host:5432/database`.
        schema: where the tables are; made where there is none.
        pooler: a transaction-mode pooler stands before the database. Others' changes are then
            found by looking alone.
        poll: seconds between two looks for changes of other processes, while anybody waits;
            without a pooler the looks are for what was not heard.

    Raises:
        BadSettings: asyncpg is not installed.
    """

    def __init__(
        self, url: str, *, schema: str = SCHEMA, pooler: bool = False, poll: float = 1.0
    ) -> None:
        driver()
        self._schema = schema
        self._sql = statements(schema)
        self._news = news(url, schema)
        self._watch = Watch(self._news, self._changes, poll)
        self._line = Line(url, pooler=pooler)
        listen = None if pooler else self._listen
        self._writer = Writer(self._line, self._sql, channel(schema), self._news.told)
        self._reader = Reader(Line(url, pooler=pooler, prepare=listen))
        self._opened = False
        self._opening = asyncio.Lock()

    async def open(self) -> None:
        """See `Ledger.open`."""
        async with self._opening:
            if not self._opened:
                try:
                    await self._prepare()
                except LedgerMismatch:
                    raise
                except LedgerUnavailable as error:
                    raise LedgerUnavailable(f"cannot open the ledger: {error}") from None
                self._opened = True

    async def close(self) -> None:
        """See `Ledger.close`."""
        async with self._opening:
            self._opened = False
            self._watch.close()
            await self._writer.close()
            await self._reader.close()

    def subscribe(self, wake: Callable[[], None]) -> Callable[[], None]:
        """See `Ledger.subscribe`; behind a pooler, others' changes are known after `poll`."""
        self._check()
        return self._watch.add(wake)

    async def intend(
        self, intent: Intent, limits: Limits, now: float
    ) -> IntentWritten | LimitReached:
        """See `Ledger.intend`."""
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
        """See `Ledger.accept`."""
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
        """See `Ledger.adopt`."""
        return await self._write(
            lambda books: words.import_task(
                books, prediction, now, expected_at=expected_at, webhook=webhook
            ),
            keys=[f"task:{prediction.id}"],
            tasks=[prediction.id],
        )

    async def mark_unknown(self, key: str, reason: str, now: float, *, ask_at: float) -> None:  # noqa: ARG002 - the port's
        """See `Ledger.doubt`."""
        await self._write(lambda books: words.mark_unknown(books, key, reason, ask_at), keys=[key])

    async def reject(self, key: str, reason: str, now: float) -> bool:
        """See `Ledger.reject`."""
        return await self._write(lambda books: words.reject(books, key, reason, now), keys=[key])

    async def finish(self, results: Sequence[Result], now: float) -> list[Entry]:
        """See `Ledger.finish`; it writes only where a result is of an entry, and is news."""
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
        """See `Ledger.find`."""
        found = await self._entries("find", [text(key) for key in keys])
        return {entry.key: entry for entry in found}

    async def find_tasks(self, task_ids: Sequence[str]) -> dict[str, Entry]:
        """See `Ledger.find_tasks`; one that is no guess goes first."""
        found = await self._entries("find_tasks", [text(task_id) for task_id in task_ids])
        return {str(entry.task_id): entry for entry in found}

    async def open_entries(self, *, limit: int = 1000) -> list[Entry]:
        """See `Ledger.open_entries`."""
        return await self._entries("open_entries", limit)

    async def finished(self, after: int, *, limit: int = 1000) -> list[Entry]:
        """See `Ledger.finished`."""
        return await self._entries("finished", after, limit)

    async def last_place(self) -> int:
        """See `Ledger.last_place`."""
        ((_, found),) = await self._read("head")
        return int(found)

    async def due(
        self, now: float, *, hold: float, limit: int = 100, keys: Sequence[str] | None = None
    ) -> list[Entry]:
        """See `Ledger.due`; it writes only where something is due."""
        only = None if keys is None else [text(key) for key in keys]
        if only is None:
            found = await self._read("due", now, 1)
        else:
            found = await self._read("due_of", now, 1, only)
        if not found:
            return []
        return await self._write(lambda books: words.due(books, now, hold, limit, only))

    async def postpone(self, key: str, ask_at: float) -> None:
        """See `Ledger.postpone`."""
        await self._write(lambda books: words.postpone(books, key, ask_at), keys=[key])

    async def undelivered(self, before: float, *, limit: int = 100) -> list[Entry]:
        """See `Ledger.undelivered`."""
        return await self._entries("undelivered", before, limit)

    async def pause(self, until: float) -> None:
        """See `Ledger.pause`."""
        await self._write(lambda books: words.pause(books, until))

    async def durations(self, model: str, *, limit: int = 200) -> list[float]:
        """See `Ledger.durations`; the latest first."""
        return [seconds for (seconds,) in await self._read("durations", text(model), limit)]

    async def overdue(self, now: float) -> int:
        """See `Ledger.overdue`."""
        ((count,),) = await self._read("overdue", now)
        return int(count)

    async def uploaded(self, digest: str, *, after: float) -> str | None:
        """See `Ledger.uploaded`."""
        found = await self._read("uploaded", text(digest), after)
        return found[0][0] if found else None

    async def upload(self, digest: str, url: str, now: float) -> None:
        """See `Ledger.upload`."""
        await self._write(lambda books: words.upload(books, digest, url, now))

    async def purge(self, before: float) -> int:
        """See `Ledger.purge`."""
        count, more = 0, True
        while more:
            step, more = await self._write(lambda books: words.purge(books, before, PURGE_STEP))
            count += step
        return count

    async def _prepare(self) -> None:
        work = partial(prepare, schema=self._schema)
        for left in reversed(range(_TRIES)):
            try:
                await self._line.run(work, begin=self._sql["begin"])
            except Refused:
                if not left:
                    raise
            else:
                break

    async def _listen(self, connection: Connection) -> None:
        def heard(_: object, __: int, ___: str, payload: str) -> None:
            # Anybody may say anything on a channel.
            if payload.isdecimal():
                self._news.told(int(payload))

        await connection.add_listener(channel(self._schema), heard)

    async def _changes(self) -> int:
        ((found, _),) = await self._read("head")
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
        return await self._writer.write(work, keys=keys, tasks=tasks)

    async def _read(self, name: str, *values: object) -> list[Any]:
        self._check()
        return await self._reader.fetch(self._sql[name], *values)

    async def _entries(self, name: str, *values: object) -> list[Entry]:
        return [rows.read(found) for found in await self._read(name, *values)]
