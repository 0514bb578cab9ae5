"""The inbox's writes as bulk functions on an open connection, inside a transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from receiver.event import Claim, Dispatch, Event, Outcome, Receipt
from receiver.rate import NEVER, believed, free, spent
from receiver.stores import rows
from receiver.stores.base import KEY_DAYS, Plan, Purged
from receiver.stores.migrate import statements

SQL = statements("sqlite")

Ask = tuple[str, Mapping[str, int], float, float, Mapping[str, float]]
"""Of `claim`: owner, limits, lease, now, rates."""


def add(connection: sqlite3.Connection, batch: list[tuple[Event, Plan]]) -> list[Receipt]:
    """Store what is new, with its dispatches."""
    receipts = []
    for start in range(0, len(batch), ROWS):
        receipts += _add(connection, batch[start : start + ROWS])
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
    """Which of these are the first of an id that is new."""
    fresh = []
    for each in ids:
        fresh.append(each in new)
        new.discard(each)
    return fresh


def _fan_out(connection: sqlite3.Connection, plans: list[Plan], before: int) -> None:
    """Give the events that follow number `before` their dispatches, a run of like plans at once."""
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


def claim(connection: sqlite3.Connection, asks: list[Ask]) -> list[list[Claim]]:
    """Lease what is due, each asker after the other."""
    return [_claim(connection, ask) for ask in asks]


def _claim(connection: sqlite3.Connection, ask: Ask) -> list[Claim]:
    owner, limits, lease, now, rates = ask
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
    """Those of a handler's due rows that its rate lets start, which are counted."""
    handler = due[0][1]
    row = connection.execute(SQL["next_at"], {"handler": handler}).fetchone()
    kept = NEVER if row is None else float(row[0])
    next_at = believed(kept, rate, now)
    due = due[: free(next_at, rate, now)]
    if due:
        next_at = spent(next_at, rate, now, len(due))
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
    connection: sqlite3.Connection, asks: list[tuple[Sequence[Dispatch], str, float, float]]
) -> list[list[Dispatch]]:
    """Renew leases; answers those that were lost."""
    return [
        [
            dispatch
            for dispatch in dispatches
            if not connection.execute(
                SQL["extend"], _fence(dispatch, owner) | {"until": now + lease}
            ).rowcount
        ]
        for dispatches, owner, lease, now in asks
    ]


def settle(
    connection: sqlite3.Connection, asks: list[tuple[Dispatch, str, Outcome, float]]
) -> list[bool]:
    """Record outcomes; False where the lease was lost."""
    return [_settle(connection, *ask) for ask in asks]


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


def pause(connection: sqlite3.Connection, asks: list[tuple[str, float]]) -> list[None]:
    """Make pauses, or make them longer."""
    connection.executemany(
        SQL["pause"], [{"handler": name, "until": until} for name, until in asks]
    )
    return [None] * len(asks)


def retry(connection: sqlite3.Connection, asks: list[tuple[str, str, float]]) -> list[bool]:
    """Make dead dispatches pending; False where none is dead."""
    return [
        bool(
            connection.execute(
                SQL["retry"], {"event_id": event_id, "handler": handler, "now": now}
            ).rowcount
        )
        for event_id, handler, now in asks
    ]


def redeliver(connection: sqlite3.Connection, asks: list[tuple[str, Plan, float]]) -> list[bool]:
    """Make the dispatches of stored events pending again; False where there is no event."""
    return [_redeliver(connection, *ask) for ask in asks]


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


def ping(connection: sqlite3.Connection, asks: list[None]) -> list[None]:
    """Write something that changes nothing."""
    connection.execute(SQL["ping"])
    return asks


def purge(
    connection: sqlite3.Connection, asks: list[tuple[int, float, float, int]]
) -> list[tuple[int, Purged]]:
    """One step each: after which `seq`, before when, now, how many; answers where to go on."""
    return [_purge(connection, *ask) for ask in asks]


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


ROWS = 64
"""Rows of one statement at most. Each number of rows is a statement of its own, compiled once: one
statement gives up the interpreter lock once, and to get it back is what costs beside a busy loop.
"""


@cache
def _rows_sql(name: str, columns: int, size: int) -> str:
    row = "(" + ",".join("?" * columns) + ")"
    return SQL[name].replace("...", ",".join([row] * size))


def _insert(connection: sqlite3.Connection, name: str, columns: int, values: list[Any]) -> None:
    step = ROWS * columns
    for start in range(0, len(values), step):
        some = values[start : start + step]
        connection.execute(_rows_sql(name, columns, len(some) // columns), some)
