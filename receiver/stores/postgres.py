"""The store on PostgreSQL: for any number of machines.

Adds of one moment share a statement and a commit (`postgres_group`), and so do settles on a
connection beside it; claims have a third, reads others. Order of arrival over all processes: see
`add_events` in `sql/postgres/0002_work.sql`.

The inbox's writes, each for many requests at once, in one round trip and one commit.

What there is at an address of PostgreSQL, seen without changing anything.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import uuid4

from receiver.errors import StoreUnavailable
from receiver.event import Attempt, Claim, Dispatch, DispatchState, Event, Outcome, Receipt
from receiver.stores import rows
from receiver.stores.base import KEY_DAYS, Listed, Plan, Purged, Stats, Store
from receiver.stores.migrate import migrations
from receiver.stores.postgres_migrate import migrate_postgres, named, version
from submitter.postgres import SCHEMA, name_fault
from submitter.storage.notify import Listener
from submitter.storage.postgres_batch import A, Bulk, Lane, R
from submitter.storage.postgres_pool import Connection, Link

Ask = tuple[str, Mapping[str, int], float, float, Mapping[str, float]]
"""Of `claim`: owner, limits, lease, now, rates."""

_MARK = "\x1a"


def kept(text: str | None) -> str | None:
    """A text as it is stored: PostgreSQL has no zero character."""
    if text is None or ("\x00" not in text and _MARK not in text):
        return text
    return text.replace(_MARK, _MARK + "1").replace("\x00", _MARK + "0")


def given(row: Iterable[Any]) -> list[Any]:
    """The values of a row with its texts as they were before `kept`."""
    return [
        value.replace(_MARK + "0", "\x00").replace(_MARK + "1", _MARK)
        if isinstance(value, str) and _MARK in value
        else value
        for value in row
    ]


class Inbox:
    """The bulk functions of one schema.

    Args:
        schema: its name.
        channel: where other processes are told of what can be claimed; None: nowhere.
        sender: the payload there, by which this process knows its own.
        server_clock: the server says what time it is; what is given as a time then counts as its
            distance from the `now` beside it.
    """

    def __init__(
        self, schema: str, *, channel: str | None, sender: str, server_clock: bool
    ) -> None:
        self._schema = schema
        self._heard = (channel, sender)
        self._server_clock = server_clock

    def _now(self, now: float) -> float | None:
        return None if self._server_clock else now

    async def _value(self, connection: Connection, name: str, *values: Any) -> Any:
        return await connection.fetchval(named(name, self._schema), *values)

    async def _numbers(self, connection: Connection, name: str, *values: Any) -> set[int]:
        """The places, from 0, that a function answers from 1."""
        found = await connection.fetch(named(name, self._schema), *values)
        return {n - 1 for (n,) in found}

    async def add(
        self, connection: Connection, batch: list[tuple[Event, Plan]]
    ) -> Sequence[Receipt]:
        """Store what is new, with its dispatches."""
        places: dict[str, int] = {}
        plans: dict[tuple[tuple[str, tuple[str, ...]], ...], int] = {}
        events, plan_of = [], []
        for n, (event, plan) in enumerate(batch):
            if event.id not in places:
                places[event.id] = n
                events.append(n)
                plan_of.append(plans.setdefault(tuple(plan.items()), len(plans)))
        columns = list(zip(*(_row(batch[n][0]) for n in events), strict=True))
        found = await self._numbers(
            connection,
            "add",
            *columns,
            plan_of,
            *_planned(plans),
            self._server_clock,
            *self._heard,
        )
        new = {events[n] for n in found}
        return [Receipt(event.id, n not in new) for n, (event, _) in enumerate(batch)]

    async def claim(self, connection: Connection, asks: list[Ask]) -> Sequence[list[Claim]]:
        """Lease what is due, each asker after the other."""
        return [await self._claim(connection, ask) for ask in asks]

    async def _claim(self, connection: Connection, ask: Ask) -> list[Claim]:
        owner, limits, lease, now, rates = ask
        wanted = {handler: limit for handler, limit in limits.items() if limit > 0}
        if not wanted:
            return []
        # Whoever has no rate locks nothing.
        limited = [[rates.get(handler) for handler in wanted]] if wanted.keys() & rates else []
        found = [
            given(row)
            for row in await connection.fetch(
                named("claim_at_rates" if limited else "claim", self._schema),
                owner,
                list(wanted),
                list(wanted.values()),
                *limited,
                lease,
                self._now(now),
            )
        ]
        id_column = rows.DISPATCH_COLUMNS + 1
        earlier = await self._earlier(
            connection, {row[0]: row[id_column] for row in found if row[6] != "[]"}
        )
        claims = []
        for row in found:
            # Each handler gets an event of its own.
            event = rows.read_event(row[rows.DISPATCH_COLUMNS :])
            dispatch = rows.read_dispatch(row[: rows.DISPATCH_COLUMNS], event.id)
            ended = earlier.get(row[0], {})
            claims.append(
                Claim(dispatch, event, {n: ended[n] for n in dispatch.after if n in ended})
            )
        return claims

    async def _earlier(
        self, connection: Connection, ids: Mapping[int, str]
    ) -> dict[int, dict[str, Dispatch]]:
        """The finished dispatches of some events."""
        ended: dict[int, dict[str, Dispatch]] = {}
        if ids:
            for row in await connection.fetch(named("earlier", self._schema), list(ids)):
                dispatch = rows.read_dispatch(given(row), ids[row[0]])
                ended.setdefault(row[0], {})[dispatch.handler] = dispatch
        return ended

    async def extend(
        self, connection: Connection, asks: list[tuple[Sequence[Dispatch], str, float, float]]
    ) -> Sequence[list[Dispatch]]:
        """Renew leases; answers those that were lost."""
        answers = []
        for dispatches, owner, lease, now in asks:
            # An update answers once for a row, however often it is named.
            held = list(
                dict.fromkeys((each.event_id, each.handler, each.attempt) for each in dispatches)
            )
            renewed = await self._numbers(
                connection,
                "extend",
                [kept(event_id) for event_id, _, _ in held],
                [handler for _, handler, _ in held],
                [attempt for _, _, attempt in held],
                owner,
                lease,
                self._now(now),
            )
            lost = {each for n, each in enumerate(held) if n not in renewed}
            answers.append(
                [each for each in dispatches if (each.event_id, each.handler, each.attempt) in lost]
            )
        return answers

    async def settle(
        self, connection: Connection, asks: list[tuple[Dispatch, str, Outcome, float]]
    ) -> Sequence[bool]:
        """Record outcomes; False where the lease was lost."""
        # Of two outcomes of one attempt the first counts.
        first: dict[tuple[str, str, int, str], int] = {}
        for n, (dispatch, owner, _, _) in enumerate(asks):
            first.setdefault((dispatch.event_id, dispatch.handler, dispatch.attempt, owner), n)
        places = list(first.values())
        columns = list(zip(*(self._settlement(*asks[n]) for n in places), strict=True))
        settled = await self._value(connection, "settle", *columns, *self._heard) or ()
        counted = {places[n - 1] for n in settled}
        return [n in counted for n in range(len(asks))]

    def _settlement(
        self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float
    ) -> tuple[Any, ...]:
        values = rows.settlement(outcome, now)
        due = values["due_at"]
        return (
            kept(dispatch.event_id),
            dispatch.handler,
            dispatch.attempt,
            owner,
            values["state"],
            due - now if self._server_clock and due is not None else due,
            values["spared"],
            kept(values["error"]),
            values["result"],
            values["outcome"],
            self._now(now),
        )

    async def pause(
        self, connection: Connection, asks: list[tuple[str, float, float]]
    ) -> Sequence[None]:
        """Make pauses, or make them longer: handler, until, now."""
        for handler, until, now in asks:
            at = until - now if self._server_clock else until
            await connection.execute(named("pause", self._schema), handler, at, self._server_clock)
        return [None] * len(asks)

    async def retry(
        self, connection: Connection, asks: list[tuple[str, str, float]]
    ) -> Sequence[bool]:
        """Make dead dispatches pending; False where none is dead."""
        return [
            await self._value(
                connection, "retry", kept(event_id), handler, self._now(now), *self._heard
            )
            for event_id, handler, now in asks
        ]

    async def redeliver(
        self, connection: Connection, asks: list[tuple[str, Plan, float]]
    ) -> Sequence[bool]:
        """Make the dispatches of stored events pending again; False where there is no event."""
        return [
            await self._value(
                connection,
                "redeliver",
                kept(event_id),
                list(plan),
                [json.dumps(after) for after in plan.values()],
                self._now(now),
                *self._heard,
            )
            for event_id, plan, now in asks
        ]

    async def ping(self, connection: Connection, asks: list[None]) -> Sequence[None]:
        """Write something that changes nothing."""
        await connection.execute(named("ping", self._schema))
        return asks

    async def purge(
        self, connection: Connection, asks: list[tuple[int, float, float, int]]
    ) -> Sequence[tuple[int | None, Purged]]:
        """One step each: after which `seq`, before when, now, how many; answers where to go on."""
        answers = []
        for after, before, now, limit in asks:
            zero = now if self._server_clock else 0.0
            forget = min(before, now - KEY_DAYS * 86400)
            upto, payloads, events = await connection.fetchrow(
                named("purge", self._schema),
                after,
                before - zero,
                forget - zero,
                self._server_clock,
                limit,
            )
            answers.append((upto, Purged(payloads, events)))
        return answers


def _row(event: Event) -> list[Any]:
    """The columns of an event after `seq`."""
    return [kept(value) if isinstance(value, str) else value for value in rows.event_row(event)]


def _planned(plans: Mapping[tuple[tuple[str, tuple[str, ...]], ...], int]) -> list[list[Any]]:
    """The columns of all dispatches of all plans: plan, handler, after, waiting."""
    planned = [
        (n, handler, json.dumps(after), any(name in names for name in after))
        for plan, n in plans.items()
        for names in (dict(plan),)
        for handler, after in plan
    ]
    return [[row[column] for row in planned] for column in range(4)]


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


@dataclass(frozen=True, slots=True)
class Look:
    """What was found.

    Attributes:
        version: of the inbox's schema; 0 where there is none.
        newest: the one that a start brings it to.
        may_make: this user may make the schema, or tables in it where it is there.
        used: connections of the server's clients.
        most: so many there may be of users who are no superusers.
    """

    version: int
    newest: int
    may_make: bool
    used: int
    most: int


async def look(url: str, schema: str, *, pooler: bool) -> Look:
    """Look for an inbox.

    Args:
        url: as `PostgresStore` takes it.
        schema: where it may be.
        pooler: see `PostgresStore`.

    Raises:
        SchemaMismatch: a newer version made it.
        StoreUnavailable: the server cannot be reached, or does not let us in.
        SettingsError: asyncpg is not installed.
    """
    newest = migrations("postgres")[-1][0]
    link = Link(url, pooler=pooler)
    await link.open()
    try:
        async with link.use() as connection:
            found = await version(connection, schema, newest)
        ((may_make, used, most),) = await link.read(named("room", schema))
        return Look(found, newest, may_make, used, most)
    finally:
        await link.close()
