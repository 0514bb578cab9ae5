"""The store on PostgreSQL: for any number of machines.

Adds that arrive together share a statement and a commit (`BatchWriter`), and so do settles on a
connection beside it; claims have a third, reads others. For the order of arrival over all processes
see `add_events` in `sql/postgres/0002_work.sql`. `PostgresInbox` holds the writes, each for many
requests in one round trip and one commit.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal
from uuid import uuid4

from receiver.errors import (
    SchemaMismatch,
    SettingsError,
    StoreError,
    StoreRefused,
    StoreUnavailable,
)
from receiver.event import Attempt, Claim, Dispatch, DispatchState, Event, Outcome, Receipt
from receiver.stores import rows
from receiver.stores.base import KEY_DAYS, Listed, Plan, Purged, Stats, Store
from submitter.storage import migrations
from submitter.storage.errors import (
    DriverMissing,
    StorageError,
    StorageMismatch,
    StorageRefused,
)
from submitter.storage.notify import Listener
from submitter.storage.postgres_batch import MAX_BATCH_BYTES, A, BatchWriter, BulkWrite, R
from submitter.storage.postgres_pool import (
    DEFAULT_SCHEMA,
    STATEMENT_TIMEOUT_S,
    Pool,
    PostgresConnection,
    schema_name_fault,
)

_PACKAGE = "receiver.stores"

POOL_SIZE = 5
"""Connections of one process: adding, claiming, working, and two that read. One more listens."""

MAX_READS = 2
"""Reads at the same time, so that they take no connection from the writers."""

ClaimRequest = tuple[str, Mapping[str, int], float, float, Mapping[str, float]]
"""Owner, limits, lease, now, rates."""

_ESCAPE = "\x1a"


def named(name: str, schema: str) -> str:
    """A named statement, for a schema."""
    return _statements(schema)[name]


@cache
def _statements(schema: str) -> dict[str, str]:
    return migrations.statements(_PACKAGE, "postgres", migrations.postgres_names(schema))


def escape_nul(text: str | None) -> str | None:
    """A text as it is stored: PostgreSQL stores no NUL character."""
    if text is None or ("\x00" not in text and _ESCAPE not in text):
        return text
    return text.replace(_ESCAPE, _ESCAPE + "1").replace("\x00", _ESCAPE + "0")


def unescape_row(row: Iterable[Any]) -> list[Any]:
    """The values of a row, with its texts as they were before `escape_nul`."""
    return [
        value.replace(_ESCAPE + "0", "\x00").replace(_ESCAPE + "1", _ESCAPE)
        if isinstance(value, str) and _ESCAPE in value
        else value
        for value in row
    ]


class PostgresInbox:
    """The bulk writes of one schema.

    Args:
        schema: its name.
        channel: notified of dispatches that can be claimed; None: nobody is notified.
        sender: the notification's payload, by which this process recognises its own.
        server_clock: the server's clock is the time; a time that is given counts as its distance
            from the `now` beside it.
    """

    def __init__(
        self, schema: str, *, channel: str | None, sender: str, server_clock: bool
    ) -> None:
        self._schema = schema
        self._channel_and_sender = (channel, sender)
        self._server_clock = server_clock

    def _now(self, now: float) -> float | None:
        return None if self._server_clock else now

    async def _value(self, connection: PostgresConnection, name: str, *values: Any) -> Any:
        return await connection.fetchval(named(name, self._schema), *values)

    async def _numbers(self, connection: PostgresConnection, name: str, *values: Any) -> set[int]:
        """The positions in a batch that a function returns; it counts from 1."""
        found = await connection.fetch(named(name, self._schema), *values)
        return {n - 1 for (n,) in found}

    async def add(
        self, connection: PostgresConnection, batch: list[tuple[Event, Plan]]
    ) -> Sequence[Receipt]:
        """Store new events, each with its dispatches."""
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
            *self._channel_and_sender,
        )
        new = {events[n] for n in found}
        return [Receipt(event.id, n not in new) for n, (event, _) in enumerate(batch)]

    async def claim(
        self, connection: PostgresConnection, requests: list[ClaimRequest]
    ) -> Sequence[list[Claim]]:
        """Lease due dispatches, one request after the other."""
        return [await self._claim(connection, request) for request in requests]

    async def _claim(self, connection: PostgresConnection, request: ClaimRequest) -> list[Claim]:
        owner, limits, lease, now, rates = request
        wanted = {handler: limit for handler, limit in limits.items() if limit > 0}
        if not wanted:
            return []
        # A claim without a rate locks nothing.
        limited = [[rates.get(handler) for handler in wanted]] if wanted.keys() & rates else []
        found = [
            unescape_row(row)
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
            # Each handler gets its own copy of the event.
            event = rows.read_event(row[rows.DISPATCH_COLUMNS :])
            dispatch = rows.read_dispatch(row[: rows.DISPATCH_COLUMNS], event.id)
            ended = earlier.get(row[0], {})
            claims.append(
                Claim(dispatch, event, {n: ended[n] for n in dispatch.after if n in ended})
            )
        return claims

    async def _earlier(
        self, connection: PostgresConnection, ids: Mapping[int, str]
    ) -> dict[int, dict[str, Dispatch]]:
        """The finished dispatches of some events."""
        ended: dict[int, dict[str, Dispatch]] = {}
        if ids:
            for row in await connection.fetch(named("earlier", self._schema), list(ids)):
                dispatch = rows.read_dispatch(unescape_row(row), ids[row[0]])
                ended.setdefault(row[0], {})[dispatch.handler] = dispatch
        return ended

    async def extend(
        self,
        connection: PostgresConnection,
        requests: list[tuple[Sequence[Dispatch], str, float, float]],
    ) -> Sequence[list[Dispatch]]:
        """Renew leases; returns those that were lost."""
        answers = []
        for dispatches, owner, lease, now in requests:
            # An update returns a row once, however often it is named.
            held = list(
                dict.fromkeys((each.event_id, each.handler, each.attempt) for each in dispatches)
            )
            renewed = await self._numbers(
                connection,
                "extend",
                [escape_nul(event_id) for event_id, _, _ in held],
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
        self, connection: PostgresConnection, requests: list[tuple[Dispatch, str, Outcome, float]]
    ) -> Sequence[bool]:
        """Record outcomes; False if the lease was lost."""
        # Of two outcomes of one attempt the first counts.
        first: dict[tuple[str, str, int, str], int] = {}
        for n, (dispatch, owner, _, _) in enumerate(requests):
            first.setdefault((dispatch.event_id, dispatch.handler, dispatch.attempt, owner), n)
        places = list(first.values())
        columns = list(zip(*(self._settlement(*requests[n]) for n in places), strict=True))
        settled = await self._value(connection, "settle", *columns, *self._channel_and_sender) or ()
        counted = {places[n - 1] for n in settled}
        return [n in counted for n in range(len(requests))]

    def _settlement(
        self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float
    ) -> tuple[Any, ...]:
        values = rows.settlement(outcome, now)
        due = values["due_at"]
        return (
            escape_nul(dispatch.event_id),
            dispatch.handler,
            dispatch.attempt,
            owner,
            values["state"],
            due - now if self._server_clock and due is not None else due,
            values["spared"],
            escape_nul(values["error"]),
            values["result"],
            values["outcome"],
            self._now(now),
        )

    async def pause(
        self, connection: PostgresConnection, requests: list[tuple[str, float, float]]
    ) -> Sequence[None]:
        """Pause handlers, or extend their pauses; a request is a handler, until, now."""
        for handler, until, now in requests:
            at = until - now if self._server_clock else until
            await connection.execute(named("pause", self._schema), handler, at, self._server_clock)
        return [None] * len(requests)

    async def retry(
        self, connection: PostgresConnection, requests: list[tuple[str, str, float]]
    ) -> Sequence[bool]:
        """Make dead dispatches pending; False if none is dead."""
        return [
            await self._value(
                connection,
                "retry",
                escape_nul(event_id),
                handler,
                self._now(now),
                *self._channel_and_sender,
            )
            for event_id, handler, now in requests
        ]

    async def redeliver(
        self, connection: PostgresConnection, requests: list[tuple[str, Plan, float]]
    ) -> Sequence[bool]:
        """Make the dispatches of stored events pending again; False if the event is missing."""
        return [
            await self._value(
                connection,
                "redeliver",
                escape_nul(event_id),
                list(plan),
                [json.dumps(after) for after in plan.values()],
                self._now(now),
                *self._channel_and_sender,
            )
            for event_id, plan, now in requests
        ]

    async def ping(self, connection: PostgresConnection, requests: list[None]) -> Sequence[None]:
        """Write a row, to learn whether writes work."""
        await connection.execute(named("ping", self._schema))
        return requests

    async def purge(
        self, connection: PostgresConnection, requests: list[tuple[int, float, float, int]]
    ) -> Sequence[tuple[int | None, Purged]]:
        """Purge in steps; a request is `seq` to start after, before, now, limit.

        Returns:
            The `seq` to go on after, or None at the end, and the number removed.
        """
        answers = []
        for after, before, now, limit in requests:
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
    return [
        escape_nul(value) if isinstance(value, str) else value for value in rows.event_row(event)
    ]


def _planned(plans: Mapping[tuple[tuple[str, tuple[str, ...]], ...], int]) -> list[list[Any]]:
    """Columns of the dispatches of all plans: plan, handler, after, waiting."""
    planned = [
        (n, handler, json.dumps(after), any(name in names for name in after))
        for plan, n in plans.items()
        for names in (dict(plan),)
        for handler, after in plan
    ]
    return [[row[column] for row in planned] for column in range(4)]


MAX_PURGE_STEP = 500
"""Events of one step of `purge`, which takes a few milliseconds."""


class PostgresStore(Store):
    """Store on PostgreSQL.

    Args:
        url: see `Pool`.
        schema: where the tables are, created if it is missing: lower-case letters, digits and
            underscores, at most 48.
        pooler: a pooler in transaction mode stands before the server: no prepared statements, and
            the work of other processes is found by polling.
        clock: "server": PostgreSQL's clock is the time, so that machines whose clocks differ agree,
            and a time given to a method counts as its distance from `now`. "caller": a given time
            counts as it stands.
        local: Unix seconds, the `now` of methods that are given a time but no `now`.
        listen: other processes' work wakes this one; False where no dispatcher runs.
        statement_timeout_s: limit for a statement.
        max_batch_bytes: bodies of one statement, about.

    Raises:
        SettingsError: asyncpg is not installed.
        ValueError: a schema cannot have this name.
    """

    def __init__(
        self,
        url: str,
        *,
        schema: str = DEFAULT_SCHEMA,
        pooler: bool = False,
        clock: Literal["caller", "server"] = "caller",
        local: Callable[[], float] = time.time,
        listen: bool = True,
        statement_timeout_s: float = STATEMENT_TIMEOUT_S,
        max_batch_bytes: int = MAX_BATCH_BYTES,
    ) -> None:
        if fault := schema_name_fault(schema):
            raise ValueError(f"{schema!r} cannot be the name of a schema: {fault}")
        self.schema = schema
        self._pool = _pool(url, pooler=pooler, local=local, statement_timeout_s=statement_timeout_s)
        self._max_batch_bytes = max_batch_bytes
        self._channel = None if pooler else f"wavehook_{schema}"
        self._listens = listen
        self._sender = uuid4().hex
        self._server_clock = clock == "server"
        self._local = local
        self._inbox = PostgresInbox(
            schema, channel=self._channel, sender=self._sender, server_clock=self._server_clock
        )
        self._add_writer: BatchWriter | None = None
        self._claim_writer: BatchWriter | None = None
        self._work_writer: BatchWriter | None = None
        self._listener: Listener | None = None
        self._wakes: list[Callable[[], None]] = []

    async def open(self) -> None:
        if self._add_writer is not None:
            return
        try:
            await migrations.migrate_postgres(self._pool, _PACKAGE, self.schema)
        except BaseException as error:
            await self._pool.close()
            if isinstance(error, StorageError):
                raise store_error(error) from None
            raise
        self._add_writer, self._claim_writer, self._work_writer = (
            BatchWriter(self._pool, max_batch_bytes=self._max_batch_bytes) for _ in range(3)
        )
        if self._channel is not None and self._listens:
            self._listener = Listener(self._pool, self._channel, self._on_notification, self._wake)
            await self._listener.start()

    async def close(self) -> None:
        writers = (self._add_writer, self._claim_writer, self._work_writer)
        self._add_writer = self._claim_writer = self._work_writer = None
        listener, self._listener = self._listener, None
        for writer in writers:
            if writer is not None:
                await writer.close()
        if listener is not None:
            await listener.stop()
        await self._pool.close()

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)

    async def ping(self) -> None:
        await self._work(self._inbox.ping, None)

    async def add(self, event: Event, plan: Plan) -> Receipt:
        receipt = await self._write(
            self._add_writer, self._inbox.add, (event, plan), len(event.body)
        )
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
        request = (owner, limits, lease, now, rates)
        return await self._write(self._claim_writer, self._inbox.claim, request)

    async def extend(
        self, dispatches: Sequence[Dispatch], owner: str, lease: float, now: float
    ) -> list[Dispatch]:
        return await self._write(
            self._work_writer, self._inbox.extend, (dispatches, owner, lease, now)
        )

    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        settled = await self._write(
            self._work_writer, self._inbox.settle, (dispatch, owner, outcome, now)
        )
        if settled:
            self._wake()
        return settled

    async def pause(self, handler: str, until: float) -> None:
        await self._work(self._inbox.pause, (handler, until, self._local()))

    async def next_due(self, handlers: Sequence[str]) -> float | None:
        ((due, server),) = await self._read("next_due", list(handlers))
        if due is None or not self._server_clock:
            return None if due is None else float(due)
        return float(due) - float(server) + self._local()

    async def event(self, event_id: str) -> Event | None:
        return (await self.find([event_id])).get(event_id)

    async def events(
        self, *, limit: int = 50, before: int | None = None, type: str | None = None
    ) -> list[Listed]:
        return [
            rows.read_listed(row)
            for row in await self._read("events", before, escape_nul(type), limit)
        ]

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        found = await self._read("find", [escape_nul(each) for each in ids])
        return {event.id: event for event in map(rows.read_event, found)}

    async def since(self, after: int, *, limit: int = 100) -> list[Listed]:
        return [rows.read_listed(row) for row in await self._read("since", after, limit)]

    async def last_seq(self) -> int:
        ((last,),) = await self._read("last_seq")
        return int(last)

    async def dispatches(self, event_id: str) -> list[Dispatch]:
        found = await self._read("dispatches", escape_nul(event_id))
        return [rows.read_dispatch(row, event_id) for row in found]

    async def attempts(self, event_id: str) -> list[Attempt]:
        return [
            rows.read_attempt(row) for row in await self._read("attempts", escape_nul(event_id))
        ]

    async def dead(self, *, limit: int = 50) -> list[Dispatch]:
        return [rows.read_dispatch(row[:-1], row[-1]) for row in await self._read("dead", limit)]

    async def retry(self, event_id: str, handler: str, now: float) -> bool:
        retried = await self._work(self._inbox.retry, (event_id, handler, now))
        self._wake()
        return retried

    async def redeliver(self, event_id: str, plan: Plan, now: float) -> bool:
        found = await self._work(self._inbox.redeliver, (event_id, plan, now))
        self._wake()
        return found

    async def purge(self, *, before: float, now: float) -> Purged:
        payloads = events = 0
        after: int | None = 0
        while after is not None:
            after, step = await self._write(
                self._work_writer, self._inbox.purge, (after, before, now, MAX_PURGE_STEP)
            )
            payloads += step.payloads
            events += step.events
        return Purged(payloads, events)

    async def stats(self) -> Stats:
        depth = await self._read("depth")
        ((oldest,),) = await self._read("oldest_open")
        return Stats(
            depth={(name, DispatchState(state)): count for name, state, count in depth},
            oldest_open=oldest,
        )

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

    def _on_notification(self, payload: str) -> None:
        if payload != self._sender:
            self._wake()

    async def _write(
        self, writer: BatchWriter | None, bulk: BulkWrite[A, R], argument: A, size: int = 0
    ) -> R:
        if writer is None:
            raise StoreUnavailable("the store is not open")
        try:
            return await writer.submit(bulk, argument, size)
        except StorageError as error:
            raise store_error(error) from None

    async def _work(self, bulk: BulkWrite[A, R], argument: A) -> R:
        return await self._write(self._work_writer, bulk, argument)

    async def _read(self, name: str, *values: Any) -> list[list[Any]]:
        if self._add_writer is None:
            raise StoreUnavailable("the store is not open")
        try:
            found = await self._pool.fetch(named(name, self.schema), *values)
        except StorageError as error:
            raise store_error(error) from None
        return [unescape_row(row) for row in found]


def store_error(error: StorageError) -> StoreError:
    """The store's error for one of the database engine."""
    match error:
        case StorageMismatch():
            return SchemaMismatch(str(error), error.found, error.expected)
        case StorageRefused():
            return StoreRefused(error.reason, error.remedy)
        case _:
            return StoreUnavailable(str(error))


@dataclass(frozen=True, slots=True)
class DatabaseProbe:
    """The state of an inbox on PostgreSQL, and of its server.

    Attributes:
        version: of the inbox's schema; 0 if there is no inbox.
        newest: the version that a start migrates it to.
        may_create: this user may create the schema, or tables in it if it exists.
        used: connections of the server's clients.
        limit: connections that the server accepts from ordinary users.
    """

    version: int
    newest: int
    may_create: bool
    used: int
    limit: int


async def probe(url: str, schema: str, *, pooler: bool) -> DatabaseProbe:
    """Look for an inbox, without changing anything.

    Args:
        url: as `PostgresStore` takes it.
        schema: its schema.
        pooler: see `PostgresStore`.

    Raises:
        SchemaMismatch: a newer version made it.
        StoreUnavailable: the server cannot be reached, or refuses.
        SettingsError: asyncpg is not installed.
    """
    newest = migrations.scripts(_PACKAGE, "postgres")[-1][0]
    pool = _pool(url, pooler=pooler)
    try:
        async with pool.use() as connection:
            found = await migrations.postgres_version(connection, _PACKAGE, schema)
        ((may_create, used, limit),) = await pool.fetch(named("room", schema))
    except StorageError as error:
        raise store_error(error) from None
    finally:
        await pool.close()
    return DatabaseProbe(found, newest, may_create, used, limit)


async def remove_schema(url: str, schema: str, *, pooler: bool) -> None:
    """Remove a schema and everything in it; the arguments are those of `PostgresStore`.

    Raises:
        StoreUnavailable: the server cannot be reached, or refuses.
    """
    pool = _pool(url, pooler=pooler)
    try:
        async with pool.use() as connection:
            await connection.execute(named("remove", schema))
    except StorageError as error:
        raise store_error(error) from None
    finally:
        await pool.close()


def _pool(
    url: str,
    *,
    pooler: bool,
    local: Callable[[], float] = time.time,
    statement_timeout_s: float = STATEMENT_TIMEOUT_S,
) -> Pool:
    try:
        return Pool(
            url,
            pooler=pooler,
            size=POOL_SIZE,
            max_reads=MAX_READS,
            statement_timeout_s=statement_timeout_s,
            clock=local,
        )
    except DriverMissing as error:
        raise SettingsError([f"WAVEHOOK_DATABASE: {error}"]) from None
