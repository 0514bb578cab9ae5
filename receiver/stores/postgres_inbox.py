"""The inbox's writes, each for many requests at once, in one round trip and one commit."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from receiver.event import Claim, Dispatch, Event, Outcome, Receipt
from receiver.stores import rows
from receiver.stores.base import KEY_DAYS, Plan, Purged
from receiver.stores.postgres_link import Connection
from receiver.stores.postgres_migrate import named

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
