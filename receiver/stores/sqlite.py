"""Store on one SQLite file: for one machine, with any number of processes.

The engine is `submitter.storage.sqlite_writer`. First come the writes, as bulk functions on an open
connection inside a transaction; then the store.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from receiver.errors import SchemaMismatch, StoreError, StoreUnavailable
from receiver.event import Attempt, Claim, Dispatch, DispatchState, Event, Outcome, Receipt
from receiver.stores import rows
from receiver.stores.base import KEY_DAYS, Listed, Plan, Purged, Stats, Store
from receiver.stores.rate_limit import NEVER, available_permits, clamp_clock_step, consume
from submitter.storage import migrations
from submitter.storage.errors import StorageError, StorageMismatch
from submitter.storage.sqlite_writer import BUSY_TIMEOUT_S, A, BulkWrite, R, SQLiteDatabase

_PACKAGE = "receiver.stores"

SQL = migrations.statements(_PACKAGE, "sqlite")

ClaimRequest = tuple[str, Mapping[str, int], float, float, Mapping[str, float]]
"""Owner, limits, lease, now, rates."""


def add(connection: sqlite3.Connection, batch: list[tuple[Event, Plan]]) -> list[Receipt]:
    """Store new events with their dispatches."""
    receipts = []
    for start in range(0, len(batch), MAX_ROWS):
        receipts += _add(connection, batch[start : start + MAX_ROWS])
    return receipts


def _add(connection: sqlite3.Connection, batch: list[tuple[Event, Plan]]) -> list[Receipt]:
    values = [value for event, _ in batch for value in rows.event_row(event)]
    cursor = connection.execute(_rows_sql("add_events", rows.EVENT_COLUMNS - 1, len(batch)), values)
    count = cursor.rowcount
    before = (cursor.lastrowid or 0) - count
    if count == len(batch):
        fresh = [True] * count
    elif count:
        (ids,) = connection.execute(SQL["added"], (before,)).fetchone()
        fresh = _firsts([event.id for event, _ in batch], set(json.loads(ids)))
    else:
        fresh = [False] * len(batch)
    _fan_out(connection, [plan for (_, plan), new in zip(batch, fresh, strict=True) if new], before)
    return [Receipt(event.id, not new) for (event, _), new in zip(batch, fresh, strict=True)]


def _firsts(ids: list[str], new: set[str]) -> list[bool]:
    """For each id, True if it is new and stands here for the first time."""
    fresh = []
    for each in ids:
        fresh.append(each in new)
        new.discard(each)
    return fresh


def _fan_out(connection: sqlite3.Connection, plans: list[Plan], before: int) -> None:
    """Insert the dispatches of the events after number `before`, a run of equal plans at once."""
    first = before + 1
    for plan, run in groupby(plans):
        last = first + len(list(run)) - 1
        if plan:
            connection.execute(
                SQL["add_dispatches"], {"plan": _planned(plan), "first": first, "last": last}
            )
        first = last + 1


def _planned(plan: Plan) -> str:
    return json.dumps(
        [
            (handler, json.dumps(after), int(any(name in plan for name in after)))
            for handler, after in plan.items()
        ]
    )


def claim(connection: sqlite3.Connection, requests: list[ClaimRequest]) -> list[list[Claim]]:
    """Lease due dispatches, one request after the other."""
    return [_claim(connection, request) for request in requests]


def _claim(connection: sqlite3.Connection, request: ClaimRequest) -> list[Claim]:
    owner, limits, lease, now, rates = request
    paused = {name for (name,) in connection.execute(SQL["paused"], {"now": now})}
    due = []
    for handler, limit in limits.items():
        if limit > 0 and handler not in paused:
            found = connection.execute(
                SQL["due"], {"handler": handler, "now": now, "limit": limit}
            ).fetchall()
            if found and handler in rates:
                found = _metered(connection, found, rates[handler], now)
            if found:
                _lease(connection, found, owner, now + lease, now)
                due += found
    claims = []
    for row in due:
        _, handler, _, attempt, tries, _, after, *_ = row
        event = rows.read_event(row[rows.DISPATCH_COLUMNS :])
        dispatch = rows.read_dispatch(
            (
                row[0],
                handler,
                "leased",
                attempt + 1,
                tries + 1,
                now + lease,
                after,
                0,
                owner,
                *row[9 : rows.DISPATCH_COLUMNS],
            ),
            event.id,
        )
        earlier = _earlier(connection, row[0], after) if after != "[]" else {}
        claims.append(Claim(dispatch, event, earlier))
    return claims


def _metered(connection: sqlite3.Connection, due: list[Any], rate: float, now: float) -> list[Any]:
    """The due rows of a handler that its rate allows to start, which are counted as started."""
    handler = due[0][1]
    row = connection.execute(SQL["next_at"], {"handler": handler}).fetchone()
    kept = NEVER if row is None else float(row[0])
    next_at = clamp_clock_step(kept, rate, now)
    due = due[: available_permits(next_at, rate, now)]
    if due:
        next_at = consume(next_at, rate, now, len(due))
    if next_at != kept:
        connection.execute(SQL["keep_next_at"], {"handler": handler, "next_at": next_at})
    return due


def _lease(
    connection: sqlite3.Connection,
    due: Sequence[Sequence[Any]],
    owner: str,
    until: float,
    now: float,
) -> None:
    handler = due[0][1]
    events = json.dumps([row[0] for row in due])
    connection.execute(
        SQL["lease"], {"owner": owner, "until": until, "handler": handler, "events": events}
    )
    lost = [row[0] for row in due if row[2] == "leased"]
    if lost:
        connection.execute(
            SQL["lose_attempts"], {"handler": handler, "events": json.dumps(lost), "now": now}
        )
    started = [value for row in due for value in (row[0], handler, row[3] + 1, owner, now)]
    _insert(connection, "start_attempts", 5, started)


def _earlier(connection: sqlite3.Connection, event: int, after: str) -> dict[str, Dispatch]:
    found = connection.execute(SQL["earlier"], {"event": event, "handlers": after})
    return {row[1]: rows.read_dispatch(row[:-1], row[-1]) for row in found}


def extend(
    connection: sqlite3.Connection, requests: list[tuple[Sequence[Dispatch], str, float, float]]
) -> list[list[Dispatch]]:
    """Renew leases; each answer holds the dispatches whose lease was lost."""
    return [
        [
            dispatch
            for dispatch in dispatches
            if not connection.execute(
                SQL["extend"], _fence(dispatch, owner) | {"until": now + lease}
            ).rowcount
        ]
        for dispatches, owner, lease, now in requests
    ]


def settle(
    connection: sqlite3.Connection, requests: list[tuple[Dispatch, str, Outcome, float]]
) -> list[bool]:
    """Record outcomes; False if the lease was lost."""
    return [_settle(connection, *request) for request in requests]


def _settle(
    connection: sqlite3.Connection, dispatch: Dispatch, owner: str, outcome: Outcome, now: float
) -> bool:
    values = _fence(dispatch, owner) | rows.settlement(outcome, now)
    if not connection.execute(SQL["settle"], values).rowcount:
        return False
    connection.execute(SQL["end_attempt"], values)
    if values["settled_at"] is not None:
        connection.execute(SQL["free"], values)
    return True


def _fence(dispatch: Dispatch, owner: str) -> dict[str, Any]:
    return {
        "event_id": dispatch.event_id,
        "handler": dispatch.handler,
        "attempt": dispatch.attempt,
        "owner": owner,
    }


def pause(connection: sqlite3.Connection, requests: list[tuple[str, float]]) -> list[None]:
    """Set or extend pauses."""
    connection.executemany(
        SQL["pause"], [{"handler": name, "until": until} for name, until in requests]
    )
    return [None] * len(requests)


def retry(connection: sqlite3.Connection, requests: list[tuple[str, str, float]]) -> list[bool]:
    """Make dead dispatches pending; False if the dispatch is not dead."""
    return [
        bool(
            connection.execute(
                SQL["retry"], {"event_id": event_id, "handler": handler, "now": now}
            ).rowcount
        )
        for event_id, handler, now in requests
    ]


def redeliver(
    connection: sqlite3.Connection, requests: list[tuple[str, Plan, float]]
) -> list[bool]:
    """Make the dispatches of stored events pending again; False where there is no event."""
    return [_redeliver(connection, *request) for request in requests]


def _redeliver(connection: sqlite3.Connection, event_id: str, plan: Plan, now: float) -> bool:
    if connection.execute(SQL["event"], {"id": event_id}).fetchone() is None:
        return False
    connection.executemany(
        SQL["redeliver"],
        [
            {"event_id": event_id, "handler": handler, "now": now, "after": json.dumps(after)}
            for handler, after in plan.items()
        ],
    )
    connection.execute(
        SQL["await_earlier"], {"event_id": event_id, "handlers": json.dumps(list(plan))}
    )
    return True


def ping(connection: sqlite3.Connection, requests: list[None]) -> list[None]:
    """Write a row that means nothing, to find out whether writing works."""
    connection.execute(SQL["ping"])
    return requests


def purge(
    connection: sqlite3.Connection, requests: list[tuple[int, float, float, int]]
) -> list[tuple[int, Purged]]:
    """One step for each request of (last `seq`, before, now, limit); answers the next `seq`."""
    return [_purge(connection, *request) for request in requests]


def _purge(
    connection: sqlite3.Connection, after: int, before: float, now: float, limit: int
) -> tuple[int, Purged]:
    forget = min(before, now - KEY_DAYS * 86400)
    found = connection.execute(
        SQL["old"], {"after": after, "before": before, "forget": forget, "limit": limit}
    ).fetchall()
    if not found:
        return -1, Purged(0, 0)
    gone = [seq for seq, old, _ in found if old]
    emptied = [seq for seq, old, payload in found if payload and not old]
    # An event that was emptied before may have been delivered again since.
    kept = [seq for seq, old, _ in found if not old]
    for name, chosen in (
        ("forget_payloads", emptied),
        ("forget_results", kept),
        ("forget_attempts", kept + gone),
        ("forget_dispatches", gone),
        ("forget_events", gone),
    ):
        connection.execute(SQL[name], {"events": json.dumps(chosen)})
    return found[-1][0], Purged(payloads=len(emptied), events=len(gone))


MAX_ROWS = 64
"""Rows of one INSERT at most. Each number of rows is a statement of its own, compiled once: a
statement gives up the interpreter lock once, and getting it back from a busy loop is what costs.
"""


@cache
def _rows_sql(name: str, columns: int, size: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return SQL[name].replace("...", ",".join([row] * size))


def _insert(connection: sqlite3.Connection, name: str, columns: int, values: list[Any]) -> None:
    step = MAX_ROWS * columns
    for start in range(0, len(values), step):
        some = values[start : start + step]
        connection.execute(_rows_sql(name, columns, len(some) // columns), some)


MAX_PURGE_STEP = 500
"""Events of one step of `purge`: a few milliseconds of the writer's time."""


class SQLiteStore(Store):
    """Store on one SQLite file.

    Args:
        path: of the file; created if it is missing, its folder is not.
        busy_timeout_s: wait for another process's write, before the sender gets a 503.
        on_connect: called with each new connection.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        on_connect: Callable[[sqlite3.Connection], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._database = SQLiteDatabase(
            self.path, _PACKAGE, busy_timeout_s=busy_timeout_s, on_connect=on_connect
        )
        self._wakes: list[Callable[[], None]] = []

    async def open(self) -> None:
        try:
            await self._database.open()
        except StorageError as error:
            raise _store_error(error, "cannot open the database") from None

    async def close(self) -> None:
        await self._database.close()

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)

    async def ping(self) -> None:
        await self._write(ping, None)

    async def add(self, event: Event, plan: Plan) -> Receipt:
        receipt = await self._write(add, (event, plan))
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
        return await self._write(claim, (owner, limits, lease, now, rates))

    async def extend(
        self, dispatches: Sequence[Dispatch], owner: str, lease: float, now: float
    ) -> list[Dispatch]:
        return await self._write(extend, (dispatches, owner, lease, now))

    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        settled = await self._write(settle, (dispatch, owner, outcome, now))
        if settled:
            self._wake()
        return settled

    async def pause(self, handler: str, until: float) -> None:
        await self._write(pause, (handler, until))

    async def next_due(self, handlers: Sequence[str]) -> float | None:
        found = await self._read("next_due", {"handlers": json.dumps(list(handlers))})
        due: float | None = found[0][0]
        return due

    async def event(self, event_id: str) -> Event | None:
        found = await self._read("event", {"id": event_id})
        return rows.read_event(found[0]) if found else None

    async def events(
        self, *, limit: int = 50, before: int | None = None, type: str | None = None
    ) -> list[Listed]:
        found = await self._read("events", {"limit": limit, "before": before, "type": type})
        return [rows.read_listed(row) for row in found]

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        found = await self._read("find", {"ids": json.dumps(list(ids))})
        return {event.id: event for event in map(rows.read_event, found)}

    async def since(self, after: int, *, limit: int = 100) -> list[Listed]:
        found = await self._read("since", {"after": after, "limit": limit})
        return [rows.read_listed(row) for row in found]

    async def last_seq(self) -> int:
        ((last,),) = await self._read("last_seq", {})
        return int(last)

    async def dispatches(self, event_id: str) -> list[Dispatch]:
        found = await self._read("dispatches", {"id": event_id})
        return [rows.read_dispatch(row[:-1], row[-1]) for row in found]

    async def attempts(self, event_id: str) -> list[Attempt]:
        return [rows.read_attempt(row) for row in await self._read("attempts", {"id": event_id})]

    async def dead(self, *, limit: int = 50) -> list[Dispatch]:
        found = await self._read("dead", {"limit": limit})
        return [rows.read_dispatch(row[:-1], row[-1]) for row in found]

    async def retry(self, event_id: str, handler: str, now: float) -> bool:
        retried = await self._write(retry, (event_id, handler, now))
        self._wake()
        return retried

    async def redeliver(self, event_id: str, plan: Plan, now: float) -> bool:
        found = await self._write(redeliver, (event_id, plan, now))
        self._wake()
        return found

    async def purge(self, *, before: float, now: float) -> Purged:
        payloads = events = after = 0
        while after >= 0:
            after, step = await self._write(purge, (after, before, now, MAX_PURGE_STEP))
            payloads += step.payloads
            events += step.events
        return Purged(payloads, events)

    async def stats(self) -> Stats:
        depth = await self._read("depth", {})
        oldest = await self._read("oldest_open", {})
        return Stats(
            depth={(name, DispatchState(state)): count for name, state, count in depth},
            oldest_open=oldest[0][0],
        )

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()

    async def _write(self, bulk: BulkWrite[A, R], argument: A) -> R:
        try:
            return await self._database.write(bulk, argument)
        except StorageError as error:
            raise _store_error(error, "the database did not take it") from None

    async def _read(self, name: str, values: Mapping[str, Any]) -> list[Any]:
        try:
            return await self._database.read(
                lambda connection: connection.execute(SQL[name], values).fetchall()
            )
        except StorageError as error:
            raise _store_error(error, "the database did not answer") from None


def _store_error(error: StorageError, failure: str) -> StoreError:
    """The store's error for one of the database engine."""
    if isinstance(error, StorageMismatch):
        return SchemaMismatch(str(error), error.found, error.expected)
    return StoreUnavailable(f"{failure}: {error}")
