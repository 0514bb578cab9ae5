"""The values that pass between the parts; all of them are frozen.

`Delivery` is untrusted, `Event` is verified: only a Source turns one into the other, and stores
accept Events only.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON, Prediction

PARKED = "parked"
"""Type of an event that is verified, but whose body is not what its source expects."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP attempt as it arrived. Untrusted.

    Attributes:
        source: the source's name, from the path.
        headers: names in lower case, and values, as raw bytes and in order.
        body: the raw bytes.
        token: the last segment of the path: the sealed context; None without one.
        received_at: Unix seconds.
    """

    source: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)
    token: str | None = field(default=None, repr=False)
    received_at: float = 0.0


class Origin(enum.StrEnum):
    """Way by which an event reached the inbox."""

    #: Sent by the source.
    WEBHOOK = "webhook"
    #: Fetched from the API because its webhook did not arrive.
    RECONCILE = "reconcile"
    #: Replayed by a person.
    REPLAY = "replay"


@dataclass(frozen=True)
class Event:
    """A verified fact.

    Attributes:
        id: the deduplication key, made by `receiver.sources.base.event_id`.
        source: the name of the source that verified it.
        type: `prediction.<status>`, another source's own type, or `parked`.
        subject: the task id; None if the body has none.
        model: the model's id, from the signed body.
        context: what the submitter sealed into the webhook URL; any JSON.
        body: the raw bytes that were signed; empty once `purge` has removed them.
        origin: how it reached the inbox.
        webhook_id: the sender's id of the message; kept as data, because it may not be unique.
        occurred_at: Unix seconds, the sender's time of the event.
        received_at: Unix seconds, the time of its first delivery by this clock.
    """

    id: str
    source: str
    type: str
    subject: str | None = None
    model: str | None = None
    context: JSON = field(default=None, repr=False)
    body: bytes = field(default=b"", repr=False)
    origin: Origin = Origin.WEBHOOK
    webhook_id: str | None = None
    occurred_at: float = 0.0
    received_at: float = 0.0

    @property
    def parked(self) -> bool:
        """True for an event that is verified but unreadable, and kept for a person."""
        return self.type == PARKED

    @cached_property
    def payload(self) -> JSON:
        """The body as parsed JSON; None if it is not strict JSON or was purged."""
        try:
            return parse(self.body)
        except Unreadable:
            return None

    @cached_property
    def prediction(self) -> Prediction | None:
        """The prediction in the body; None if the body is not one."""
        return Prediction.parse(self.payload)


@dataclass(frozen=True, slots=True)
class Receipt:
    """Result of `Store.add`: the event of this id is durably stored.

    Attributes:
        id: the event's id.
        duplicate: it was stored already.
    """

    id: str
    duplicate: bool


class DispatchState(enum.StrEnum):
    """State of one event for one handler."""

    #: Due now or later, or waiting for the handlers named in `after`.
    PENDING = "pending"
    #: Owned by a dispatcher until its lease (visibility timeout) expires.
    LEASED = "leased"
    #: The handler returned.
    DONE = "done"
    #: Given up; a person may retry it.
    DEAD = "dead"

    @property
    def open(self) -> bool:
        """True while the handler has not finished with the event."""
        return self in (DispatchState.PENDING, DispatchState.LEASED)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One event for one handler: a delivery job.

    Attributes:
        event_id: the event's id.
        handler: the handler's name.
        state: see `DispatchState`.
        attempt: the number of the latest attempt, from 1; 0 before the first. Never goes back.
        tries: attempts that count against the handler's limit; one that was released at a
            shutdown does not count.
        due_at: Unix seconds: when it may run (pending), or when the lease ends (leased).
        after: handlers that must be done or dead first.
        waiting: true while one of `after` is neither done nor dead.
        owner: the dispatcher that holds the lease.
        error: the reason of the last failure.
        result: the return value of the handler, if it is JSON.
        settled_at: Unix seconds when it became done or dead.
    """

    event_id: str
    handler: str
    state: DispatchState = DispatchState.PENDING
    attempt: int = 0
    tries: int = 0
    due_at: float = 0.0
    after: tuple[str, ...] = ()
    waiting: bool = False
    owner: str | None = None
    error: str | None = None
    result: JSON = None
    settled_at: float | None = None

    @property
    def key(self) -> str:
        """Idempotency key for the handler to pass on; the same in every retry."""
        return f"{self.event_id}/{self.handler}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased dispatch with everything its handler needs.

    Attributes:
        dispatch: the lease; its `owner` and `attempt` are the fence for `settle`.
        event: the event.
        earlier: the finished dispatches of the handlers in `after`, by name.
    """

    dispatch: Dispatch
    event: Event
    earlier: Mapping[str, Dispatch] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a handler.

    Attributes:
        handler: the handler's name.
        number: from 1.
        owner: the dispatcher that ran it.
        started_at: Unix seconds.
        ended_at: Unix seconds; None while it runs.
        outcome: `done`, `retry`, `dead`, `released`, or `lost` if its lease expired.
        error: the reason of the failure.
    """

    handler: str
    number: int
    owner: str
    started_at: float
    ended_at: float | None = None
    outcome: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Done:
    """The handler returned; `result` is stored if it is JSON."""

    result: JSON = None


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The handler runs again, not before `at` (Unix seconds)."""

    at: float
    error: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The handler does not run again unless a person retries it."""

    error: str


@dataclass(frozen=True, slots=True)
class Released:
    """The lease is released unused; the attempt does not count."""


Outcome = Done | RetryAt | Dead | Released
