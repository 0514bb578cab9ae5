"""Events and plans that the suites share."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from receiver.event import Claim, Dispatch, Event
from receiver.stores.base import Store

NOW = 1_800_000_000.0
DAY = 86_400.0
LEASE = 30.0
PLAN: dict[str, tuple[str, ...]] = {"keep": (), "tell": ()}
CHAIN: dict[str, tuple[str, ...]] = {"keep": (), "tell": ("keep",)}


def event(subject: str = "task-1", status: str = "completed", /, **changes: Any) -> Event:
    """An event about a prediction; the changes go to any of its fields."""
    return replace(
        Event(
            id=f"wavespeed:{subject}:{status}",
            source="wavespeed",
            type=f"prediction.{status}",
            subject=subject,
            model="kwaivgi/kling-v2.1-i2v-standard",
            context={"user": "é", "jobs": [1, 2.5, None]},
            body=b'{"id": "%s", "status": "%s"}' % (subject.encode(), status.encode()),
            webhook_id="msg-1",
            occurred_at=NOW - 2.5,
            received_at=NOW,
        ),
        **changes,
    )


async def claim(
    store: Store,
    handler: str = "keep",
    *,
    owner: str = "a",
    now: float = NOW,
    limit: int = 10,
    rate: float | None = None,
) -> list[Claim]:
    """Claim for one handler."""
    rates = {} if rate is None else {handler: rate}
    return await store.claim(owner, {handler: limit}, LEASE, now, rates)


async def claim_one(
    store: Store, handler: str = "keep", *, owner: str = "a", now: float = NOW
) -> Dispatch:
    """Claim for one handler the one dispatch that is due."""
    (found,) = await claim(store, handler, owner=owner, now=now)
    return found.dispatch


async def only(store: Store, handler: str = "keep", subject: str = "task-1") -> Dispatch:
    """A dispatch as it is stored."""
    found = await store.dispatches(event(subject).id)
    return {dispatch.handler: dispatch for dispatch in found}[handler]
