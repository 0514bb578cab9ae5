"""The store on PostgreSQL: for any number of machines.

Adds of one moment share a statement and a commit (`postgres_group`), and so do settles on a
connection beside it; claims have a third, reads others. Order of arrival over all processes: see
`add_events` in `sql/postgres/0002_work.sql`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal
from uuid import uuid4

from receiver.errors import StoreUnavailable
from receiver.event import Attempt, Claim, Dispatch, DispatchState, Event, Outcome, Receipt
from receiver.stores import rows
from receiver.stores.base import Listed, Plan, Purged, Stats, Store
from receiver.stores.postgres_group import A, Bulk, Lane, R
from receiver.stores.postgres_inbox import Inbox, given, kept
from receiver.stores.postgres_link import Link
from receiver.stores.postgres_migrate import migrate_postgres, named
from receiver.stores.postgres_wake import Listener
from submitter.postgres import SCHEMA, name_fault

PURGE_STEP = 500
"""Events of one step of `purge`: a few milliseconds."""


class PostgresStore(Store):
    """See `Store` for the promises.

    Args:
        url: `postgresql://user:password@host:port/database`, with all that asyncpg understands;
            several hosts with `target_session_attrs=read-write` follow a failover.
        schema: where the tables are, made where it is not there: lower-case letters, digits and
            underscores, at most 48.
        pooler: there is a pooler in between that works by the transaction: no prepared
            statements, and other processes' work is found by polling.
        clock: "server": PostgreSQL says what time it is, so that machines whose clocks differ
            agree, and a time given to a method counts as its distance from `now`. "caller": what
            is given counts as it is.
        local: Unix seconds, the `now` of what is given a time but none.
        listen: other processes' work wakes this one; without, nobody here waits for it.

    Raises:
        SettingsError: asyncpg is not installed.
        ValueError: no such name can be a schema's.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = SCHEMA,
        pooler: bool = False,
        clock: Literal["caller", "server"] = "caller",
        local: Callable[[], float] = time.time,
        listen: bool = True,
    ) -> None:
        if fault := name_fault(schema):
            raise ValueError(f"{schema!r} cannot be the name of a schema here: {fault}")
        self.schema = schema
        self._link = Link(url, pooler=pooler, clock=local)
        self._channel = None if pooler else f"wavehook_{schema}"
        self._listens = listen
        self._sender = uuid4().hex
        self._server_clock = clock == "server"
        self._local = local
        self._inbox = Inbox(
            schema, channel=self._channel, sender=self._sender, server_clock=self._server_clock
        )
        self._adding: Lane | None = None
        self._claiming: Lane | None = None
        self._working: Lane | None = None
        self._listener: Listener | None = None
        self._wakes: list[Callable[[], None]] = []

    async def open(self) -> None:
        """See `Store.open`."""
        if self._adding is not None:
            return
        await self._link.open()
        try:
            await migrate_postgres(self._link, self.schema)
        except BaseException:
            await self._link.close()
            raise
        self._adding, self._claiming, self._working = (Lane(self._link) for _ in range(3))
        if self._channel is not None and self._listens:
            self._listener = Listener(
                self._link.connect, self._channel, self._sender, self._wake, self._link.errors
            )
            await self._listener.start()

    async def close(self) -> None:
        """See `Store.close`."""
        adding, self._adding = self._adding, None
        claiming, self._claiming = self._claiming, None
        working, self._working = self._working, None
        listener, self._listener = self._listener, None
        for lane in (adding, claiming, working):
            if lane is not None:
                await lane.close()
        if listener is not None:
            await listener.stop()
        await self._link.close()

    def subscribe(self, wake: Callable[[], None]) -> None:
        """See `Store.subscribe`; other processes' dispatches wake as well."""
        self._wakes.append(wake)

    async def ping(self) -> None:
        """See `Store.ping`."""
        await self._work(self._inbox.ping, None)

    async def add(self, event: Event, plan: Plan) -> Receipt:
        """See `Store.add`."""
        if self._adding is None:
            raise StoreUnavailable("the store is not open")
        receipt = await self._adding.submit(self._inbox.add, (event, plan), len(event.body))
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
        if self._claiming is None:
            raise StoreUnavailable("the store is not open")
        return await self._claiming.submit(self._inbox.claim, (owner, limits, lease, now, rates))

    async def extend(
        self, dispatches: Sequence[Dispatch], owner: str, lease: float, now: float
    ) -> list[Dispatch]:
        """See `Store.extend`."""
        return await self._work(self._inbox.extend, (dispatches, owner, lease, now))

    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        """See `Store.settle`."""
        settled = await self._work(self._inbox.settle, (dispatch, owner, outcome, now))
        if settled:
            self._wake()
        return settled

    async def pause(self, handler: str, until: float) -> None:
        """See `Store.pause`."""
        await self._work(self._inbox.pause, (handler, until, self._local()))

    async def next_due(self, handlers: Sequence[str]) -> float | None:
        """See `Store.next_due`."""
        ((due, server),) = await self._read("next_due", list(handlers))
        if due is None or not self._server_clock:
            return None if due is None else float(due)
        return float(due) - float(server) + self._local()

    async def event(self, event_id: str) -> Event | None:
        """See `Store.event`."""
        return (await self.find([event_id])).get(event_id)

    async def events(
        self, *, limit: int = 50, before: int | None = None, type: str | None = None
    ) -> list[Listed]:
        """See `Store.events`."""
        return [
            rows.read_listed(row) for row in await self._read("events", before, kept(type), limit)
        ]

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """See `Store.find`."""
        found = await self._read("find", [kept(each) for each in ids])
        return {event.id: event for event in map(rows.read_event, found)}

    async def since(self, after: int, *, limit: int = 100) -> list[Listed]:
        """See `Store.since`."""
        return [rows.read_listed(row) for row in await self._read("since", after, limit)]

    async def last_seq(self) -> int:
        """See `Store.last_seq`."""
        ((last,),) = await self._read("last_seq")
        return int(last)

    async def dispatches(self, event_id: str) -> list[Dispatch]:
        """See `Store.dispatches`."""
        found = await self._read("dispatches", kept(event_id))
        return [rows.read_dispatch(row, event_id) for row in found]

    async def attempts(self, event_id: str) -> list[Attempt]:
        """See `Store.attempts`."""
        return [rows.read_attempt(row) for row in await self._read("attempts", kept(event_id))]

    async def dead(self, *, limit: int = 50) -> list[Dispatch]:
        """See `Store.dead`."""
        return [rows.read_dispatch(row[:-1], row[-1]) for row in await self._read("dead", limit)]

    async def retry(self, event_id: str, handler: str, now: float) -> bool:
        """See `Store.retry`."""
        retried = await self._work(self._inbox.retry, (event_id, handler, now))
        self._wake()
        return retried

    async def redeliver(self, event_id: str, plan: Plan, now: float) -> bool:
        """See `Store.redeliver`."""
        found = await self._work(self._inbox.redeliver, (event_id, plan, now))
        self._wake()
        return found

    async def purge(self, *, before: float, now: float) -> Purged:
        """See `Store.purge`."""
        payloads = events = 0
        after: int | None = 0
        while after is not None:
            after, step = await self._work(self._inbox.purge, (after, before, now, PURGE_STEP))
            payloads += step.payloads
            events += step.events
        return Purged(payloads, events)

    async def stats(self) -> Stats:
        """See `Store.stats`."""
        depth = await self._read("depth")
        ((oldest,),) = await self._read("oldest_open")
        return Stats(
            depth={(name, DispatchState(state)): count for name, state, count in depth},
            oldest_open=oldest,
        )

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

    async def _work(self, bulk: Bulk[A, R], argument: A) -> R:
        if self._working is None:
            raise StoreUnavailable("the store is not open")
        return await self._working.submit(bulk, argument)

    async def _read(self, name: str, *values: Any) -> list[list[Any]]:
        found = await self._link.read(named(name, self.schema), *values)
        return [given(row) for row in found]
