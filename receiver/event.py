"""The values that pass between the parts; all frozen.

`Delivery` is untrusted, `Event` is verified: only a Source turns one into the other, and stores
accept nothing but Events.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from receiver.strict_json import Unreadable, parse
from submitter.prediction import JSON, Prediction

PARKED = "parked"
"""The type of an event that is verified but not what its source expects."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One HTTP attempt as it arrived. Untrusted.

    Attributes:
        source: the source's name, from the path.
        headers: names in lower case, and values, as raw bytes and in order.
        body: the raw bytes.
        token: the last segment of the path, where there is one: the sealed context.
        received_at: Unix seconds.
    """

    source: str
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)
    token: str | None = field(default=None, repr=False)
    received_at: float = 0.0

    def values(self, name: bytes) -> list[bytes]:
        """All values of one header; `name` in lower case."""
        return [value for key, value in self.headers if key == name]


class Origin(enum.StrEnum):
    """The way an event came in."""

    #: Sent by the source.
    WEBHOOK = "webhook"
    #: Fetched from the API because no webhook came.
    RECONCILE = "reconcile"
    #: Accepted again by a person.
    REPLAY = "replay"


@dataclass(frozen=True)
class Event:
    """A verified fact.

    Attributes:
        id: the deduplication key (see `receiver.sources.base.event_id`).
        source: the name of the source that verified it.
        type: `prediction.<status>`, another source's own type, or `parked`.
        subject: the task id, where the body has one.
        model: the model's id, from the signed body.
        context: what the submitter sealed into the webhook URL; any JSON.
        body: the raw bytes that were signed; empty once `purge` has removed them.
        origin: the way it came in.
        webhook_id: the sender's id of the message; kept as data, not trusted to be unique.
        occurred_at: Unix seconds, the sender's time of the event.
        received_at: Unix seconds, our time of its first delivery.
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
        """Verified, but not what its source expects: kept for a person to look at."""
        return self.type == PARKED

    @cached_property
    def payload(self) -> JSON:
        """The body as parsed JSON; None where it is not strict JSON or was purged."""
        try:
            return parse(self.body)
        except Unreadable:
            return None

    @cached_property
    def prediction(self) -> Prediction | None:
        """The prediction in the body; None where the body is not one."""
        return Prediction.parse(self.payload)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What `Store.add` answers: the event of this id is durably stored.

    Attributes:
        id: the event's id.
        duplicate: it was stored before.
    """

    id: str
    duplicate: bool


class DispatchState(enum.StrEnum):
    """How far one handler has come with one event."""

    #: To be run, at once or at a time, or waiting for the handlers named in `after`.
    PENDING = "pending"
    #: Owned by a dispatcher until its lease runs out.
    LEASED = "leased"
    #: The handler returned.
    DONE = "done"
    #: The handler gave up; a person may retry it.
    DEAD = "dead"

    @property
    def open(self) -> bool:
        """Whether there is still something to do."""
        return self in (DispatchState.PENDING, DispatchState.LEASED)


@dataclass(frozen=True, slots=True)
class Dispatch:
    """One event for one handler.

    Attributes:
        event_id: which event.
        handler: the handler's name.
        state: how far it has come.
        attempt: the number of the latest attempt, from 1; 0 before the first. Never goes back.
        tries: attempts that count against the handler's limit; one that was given back at a
            shutdown does not.
        due_at: Unix seconds: when it may run (pending), or when the lease ends (leased).
        after: handlers that must be done or dead first.
        waiting: one of `after` is not done or dead yet.
        owner: who holds the lease.
        error: why the last attempt failed.
        result: what the handler returned, where that is JSON.
        settled_at: Unix seconds of becoming done or dead.
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
        """Stable over retries: for a handler to pass on as an idempotency key."""
        return f"{self.event_id}/{self.handler}"


@dataclass(frozen=True, slots=True)
class Claim:
    """A leased dispatch with all that its handler needs.

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
        outcome: `done`, `retry`, `dead`, `released`, or `lost` where its lease ran out.
        error: why it failed.
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
    """The handler returned. `result` is kept where it is JSON."""

    result: JSON = None


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The handler is to run again, not before `at` (Unix seconds)."""

    at: float
    error: str


@dataclass(frozen=True, slots=True)
class Dead:
    """The handler will not run again by itself."""

    error: str


@dataclass(frozen=True, slots=True)
class Released:
    """The lease is given back unused; the attempt does not count."""


Outcome = Done | RetryAt | Dead | Released
