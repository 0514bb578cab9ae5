"""The only way in: HTTP, Lambda, reconcile and replay all end here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from receiver.errors import Stale, StoreUnavailable, UnknownSource, Unverified
from receiver.event import Delivery, Event, Receipt
from receiver.handlers.routing import Route, Router
from receiver.sources.base import WAVESPEED, Source, fetched_event, terminal_ids
from receiver.stores.base import Store
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Entry
from submitter.prediction import JSON, Prediction

Fetch = Callable[[str], Awaitable[Prediction | None]]
"""Asks the API for a task by its id; None where it knows none.

It raises ApiUnavailable where nobody can say now, and is bounded in time.
"""


class Unsealer(Protocol):
    """Opens the token in a webhook URL."""

    def open(self, token: str, now: float) -> Sealed | None:
        """What was sealed, or None where the token is not ours, altered or expired."""
        ...


class Sealed(Protocol):
    """What a token holds."""

    @property
    def context(self) -> JSON:
        """What the submitter wants to find again beside the result."""
        ...

    @property
    def model(self) -> str | None:
        """The model the token was made for; None where it is good for any."""
        ...

    @property
    def submission(self) -> str | None:
        """The key of the submission in the ledger; None where there is none."""
        ...


class Owners(Protocol):
    """Knows which task a submission is: the ledger."""

    async def find(self, keys: Sequence[str]) -> dict[str, Entry]:
        """Entries by key, of those that are there; see `Ledger.find`."""
        ...


@dataclass(frozen=True, slots=True)
class TrustedSource:
    """A source with the keys that it accepts."""

    source: Source[Any]
    keys: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that is durably stored.

    Attributes:
        event: what is stored.
        receipt: of the store.
        submission: the key of its submission, where its token told it.
    """

    event: Event
    receipt: Receipt
    submission: str | None = None


class Intake:
    """Verify, route, store.

    Args:
        sources: by the name in the path.
        routes: of all handlers.
        store: the inbox.
        seal: opens URL tokens; without one every token is refused.
        owners: the ledger; a token that was made for another task than it knows is refused.
        fetch: asks the API for what a stale delivery of WaveSpeedAI is about; without it every
            stale delivery is refused.
        stored: are told of every event that was stored as new, once it is; must not block.
    """

    def __init__(
        self,
        sources: Mapping[str, TrustedSource],
        routes: Sequence[Route],
        store: Store,
        seal: Unsealer | None = None,
        *,
        owners: Owners | None = None,
        fetch: Fetch | None = None,
        stored: Sequence[Callable[[Accepted], None]] = (),
    ) -> None:
        self.sources = sources
        self._router = Router(routes)
        self._store = store
        self._seal = seal
        self._owners = owners
        self._fetch = fetch
        self._stored = tuple(stored)

    async def accept(self, delivery: Delivery) -> Accepted:
        """Take a delivery in; when this returns, its event is on disk.

        Raises:
            Rejected: with the HTTP status; nothing was read or written (F4), but for the ledger
                where the delivery is verified and its token names a submission.
            StoreUnavailable: it is not stored; the sender must try again.
            ApiUnavailable: it came late, and the API does not say how its task stands; as before.
        """
        trusted = self.sources.get(delivery.source)
        if trusted is None:
            raise UnknownSource
        try:
            event = trusted.source.verify(delivery, trusted.keys, delivery.received_at)
        except Stale as stale:
            if self._fetch is None or stale.subject is None or delivery.source != WAVESPEED:
                raise
            return await self._late(delivery, stale, stale.subject, self._fetch)
        if delivery.token is None:
            return await self.store(event)
        sealed = self._open(delivery.token, delivery.received_at)
        event = _in_context(event, sealed)
        if self._owners is not None and sealed.submission is not None:
            await self._check_owner(self._owners, sealed.submission, event.subject)
        return await self.store(event, sealed.submission)

    async def store(self, event: Event, submission: str | None = None) -> Accepted:
        """Take in an event that is verified already, such as one fetched from the API.

        Args:
            event: verified.
            submission: the key of its submission, where it is known.
        """
        receipt = await self._store.add(event, self._router.match(event))
        accepted = Accepted(event, receipt, submission)
        if not receipt.duplicate:
            for tell in self._stored:
                tell(accepted)
        return accepted

    async def replay(self, event_id: str, now: float, handlers: Sequence[str] = ()) -> bool:
        """Let handlers act again on a stored event.

        Args:
            event_id: which.
            now: Unix seconds.
            handlers: their names; none: all that want the event by today's settings.

        Returns:
            False where there is no such event.
        """
        event = await self._store.event(event_id)
        if event is None:
            return False
        plan = self._router.match(event)
        if handlers:
            plan = {
                name: tuple(other for other in plan.get(name, ()) if other in handlers)
                for name in handlers
            }
        return await self._store.redeliver(event_id, plan, now)

    async def _late(self, delivery: Delivery, stale: Stale, subject: str, fetch: Fetch) -> Accepted:
        """Take in the result that a stale delivery is about; its own body is not believed (F7).

        It may be a replay by a stranger, or a genuine retry with the time of its first try: what
        the API says is true in both cases.
        """
        sealed = None
        if delivery.token is not None:
            sealed = self._open(delivery.token, delivery.received_at)
            if self._owners is not None and sealed.submission is not None:
                await self._check_owner(self._owners, sealed.submission, subject)
        there = await self._store.find(terminal_ids(subject))
        for event in there.values():
            return Accepted(event, Receipt(event.id, duplicate=True))
        prediction = await fetch(subject)
        if prediction is None or not prediction.terminal or prediction.id != subject:
            raise stale
        event = fetched_event(prediction, context=None, now=delivery.received_at)
        if sealed is None:
            return await self.store(event)
        return await self.store(_in_context(event, sealed), sealed.submission)

    def _open(self, token: str, now: float) -> Sealed:
        sealed = self._seal.open(token, now) if self._seal else None
        if sealed is None:
            raise Unverified("token")
        return sealed

    async def _check_owner(self, owners: Owners, key: str, subject: str | None) -> None:
        """Refuse a token that was moved to the webhook of another task of its model (F33).

        A task that is not known yet may be the right one: its webhook can be faster than the
        answer to its submit (F28). So may another than the one that was guessed from the history,
        and a first one that was believed not to exist when the submit was sent again.
        """
        try:
            entry = (await owners.find([key])).get(key)
        except LedgerUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        if entry is None or entry.guessed or entry.tries > 1 or subject is None:
            return
        if entry.task_id not in {None, subject}:
            raise Unverified("token")


def _in_context(event: Event, sealed: Sealed) -> Event:
    # A token belongs to one model: one that was moved to another's webhook is refused (F33).
    # A parked event has no model to compare, and is kept.
    if event.model and sealed.model and event.model != sealed.model:
        raise Unverified("token")
    return replace(event, context=sealed.context)
