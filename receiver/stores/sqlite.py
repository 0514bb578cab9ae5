"""The store on one SQLite file: for one machine, with any number of processes.

Writes go through one thread (`group_commit`), reads through another connection, so that neither
waits for the other (WAL). `synchronous=FULL`: what `add` has confirmed survives a power cut.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from receiver.errors import StoreUnavailable
from receiver.event import Attempt, Claim, Dispatch, DispatchState, Event, Outcome, Receipt
from receiver.stores import rows
from receiver.stores import sqlite_inbox as inbox
from receiver.stores.base import Listed, Plan, Purged, Stats, Store
from receiver.stores.checkpoint import BACKSTOP, Checkpointer
from receiver.stores.group_commit import A, Bulk, GroupCommit, R
from receiver.stores.migrate import migrate_sqlite
from submitter.sql import use_wal

BUSY = 10.0
"""Seconds that a write waits for another process's, before the sender gets a 503."""

CACHE_KIB = 4096
"""Memory for pages of each of the three connections; the system's own cache stands behind it."""

PURGE_STEP = 500
"""Events of one step of `purge`: a few milliseconds of the writer's time."""


class SQLiteStore(Store):
    """See `Store` for the promises.

    Args:
        path: of the database file; made where there is none, its folder is not.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._writer: GroupCommit | None = None
        self._reader: sqlite3.Connection | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._wakes: list[Callable[[], None]] = []

    async def open(self) -> None:
        """See `Store.open`."""
        if self._writer is not None:
            return
        threads = ThreadPoolExecutor(1, thread_name_prefix="wavehook-reader")
        try:
            self._reader = await asyncio.get_running_loop().run_in_executor(threads, self._prepare)
        except sqlite3.Error as error:
            threads.shutdown()
            raise StoreUnavailable(f"cannot open the database {self.path}: {error}") from None
        except BaseException:
            threads.shutdown()
            raise
        self._threads = threads
        self._writer = GroupCommit(self._connect, Checkpointer(self._connect))

    async def close(self) -> None:
        """See `Store.close`."""
        writer, self._writer = self._writer, None
        threads, self._threads = self._threads, None
        reader, self._reader = self._reader, None
        if writer is None or threads is None or reader is None:
            return
        await writer.close()
        await asyncio.get_running_loop().run_in_executor(threads, reader.close)
        threads.shutdown()

    def subscribe(self, wake: Callable[[], None]) -> None:
        """See `Store.subscribe`."""
        self._wakes.append(wake)

    async def ping(self) -> None:
        """See `Store.ping`."""
        await self._write(inbox.ping, None)

    async def add(self, event: Event, plan: Plan) -> Receipt:
        """See `Store.add`."""
        receipt = await self._write(inbox.add, (event, plan))
        if plan and not receipt.duplicate:
            self._wake()
        return receipt

    async def claim(
        self,
        owner: str,
        limits: Mapping[str, int],
        lease: float,
        now: float,
        rates: Mapping[str, float] = {},
    ) -> list[Claim]:
        """See `Store.claim`."""
        return await self._write(inbox.claim, (owner, limits, lease, now, rates))

    async def extend(
        self, dispatches: Sequence[Dispatch], owner: str, lease: float, now: float
    ) -> list[Dispatch]:
        """See `Store.extend`."""
        return await self._write(inbox.extend, (dispatches, owner, lease, now))

    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        """See `Store.settle`."""
        settled = await self._write(inbox.settle, (dispatch, owner, outcome, now))
        if settled:
            self._wake()
        return settled

    async def pause(self, handler: str, until: float) -> None:
        """See `Store.pause`."""
        await self._write(inbox.pause, (handler, until))

    async def next_due(self, handlers: Sequence[str]) -> float | None:
        """See `Store.next_due`."""
        found = await self._read("next_due", {"handlers": json.dumps(list(handlers))})
        due: float | None = found[0][0]
        return due

    async def event(self, event_id: str) -> Event | None:
        """See `Store.event`."""
        found = await self._read("event", {"id": event_id})
        return rows.read_event(found[0]) if found else None

    async def events(
        self, *, limit: int = 50, before: int | None = None, type: str | None = None
    ) -> list[Listed]:
        """See `Store.events`."""
        found = await self._read("events", {"limit": limit, "before": before, "type": type})
        return [rows.read_listed(row) for row in found]

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """See `Store.find`."""
        found = await self._read("find", {"ids": json.dumps(list(ids))})
        return {event.id: event for event in map(rows.read_event, found)}

    async def since(self, after: int, *, limit: int = 100) -> list[Listed]:
        """See `Store.since`."""
        found = await self._read("since", {"after": after, "limit": limit})
        return [rows.read_listed(row) for row in found]

    async def last_seq(self) -> int:
        """See `Store.last_seq`."""
        ((last,),) = await self._read("last_seq", {})
        return int(last)

    async def dispatches(self, event_id: str) -> list[Dispatch]:
        """See `Store.dispatches`."""
        found = await self._read("dispatches", {"id": event_id})
        return [rows.read_dispatch(row[:-1], row[-1]) for row in found]

    async def attempts(self, event_id: str) -> list[Attempt]:
        """See `Store.attempts`."""
        return [rows.read_attempt(row) for row in await self._read("attempts", {"id": event_id})]

    async def dead(self, *, limit: int = 50) -> list[Dispatch]:
        """See `Store.dead`."""
        found = await self._read("dead", {"limit": limit})
        return [rows.read_dispatch(row[:-1], row[-1]) for row in found]

    async def retry(self, event_id: str, handler: str, now: float) -> bool:
        """See `Store.retry`."""
        retried = await self._write(inbox.retry, (event_id, handler, now))
        self._wake()
        return retried

    async def redeliver(self, event_id: str, plan: Plan, now: float) -> bool:
        """See `Store.redeliver`."""
        found = await self._write(inbox.redeliver, (event_id, plan, now))
        self._wake()
        return found

    async def purge(self, *, before: float, now: float) -> Purged:
        """See `Store.purge`."""
        payloads = events = after = 0
        while after >= 0:
            after, step = await self._write(inbox.purge, (after, before, now, PURGE_STEP))
            payloads += step.payloads
            events += step.events
        return Purged(payloads, events)

    async def stats(self) -> Stats:
        """See `Store.stats`."""
        depth = await self._read("depth", {})
        oldest = await self._read("oldest_open", {})
        return Stats(
            depth={(name, DispatchState(state)): count for name, state, count in depth},
            oldest_open=oldest[0][0],
        )

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

    async def _write(self, bulk: Bulk[A, R], argument: A) -> R:
        if self._writer is None:
            raise StoreUnavailable("the store is not open")
        return await self._writer.submit(bulk, argument)

    async def _read(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        reader, threads = self._reader, self._threads
        if reader is None or threads is None:
            raise StoreUnavailable("the store is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(
                threads, lambda: reader.execute(inbox.SQL[name], values).fetchall()
            )
        except sqlite3.Error as error:
            raise StoreUnavailable(f"the database did not answer: {error}") from None

    def _prepare(self) -> sqlite3.Connection:
        """Migrate, and open the reading connection."""
        # Bodies hold prompts: a new file, and with it its log, is for its owner alone.
        with contextlib.suppress(OSError):
            os.close(os.open(self.path, os.O_CREAT | os.O_EXCL, 0o600))
        connection = self._connect()
        try:
            migrate_sqlite(connection)
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=BUSY,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            use_wal(connection, BUSY)
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB:d}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {BACKSTOP:d}")
        except BaseException:
            connection.close()
            raise
        return connection
