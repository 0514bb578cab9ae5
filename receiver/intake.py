"""The only way in: HTTP, Lambda, reconcile and replay all end here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from receiver.errors import UnknownSource, Unverified
from receiver.event import Delivery, Event, Receipt
from receiver.routing import Route, Router
from receiver.sources.base import Source
from receiver.stores.base import Store
from submitter.prediction import JSON


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


@dataclass(frozen=True, slots=True)
class Trusted:
    """A source with the keys that it accepts."""

    source: Source[Any]
    keys: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that is durably stored."""

    event: Event
    receipt: Receipt


class Intake:
    """Verify, route, store.

    Args:
        sources: by the name in the path.
        routes: of all handlers.
        store: the inbox.
        seal: opens URL tokens; without one every token is refused.
    """

    def __init__(
        self,
        sources: Mapping[str, Trusted],
        routes: Sequence[Route],
        store: Store,
        seal: Unsealer | None = None,
    ) -> None:
        self.sources = sources
        self._router = Router(routes)
        self._store = store
        self._seal = seal

    async def accept(self, delivery: Delivery) -> Accepted:
        """Take a delivery in; when this returns, its event is on disk.

        Raises:
            Rejected: with the HTTP status; nothing was read or written (F4).
            StoreUnavailable: it is not stored; the sender must try again.
        """
        trusted = self.sources.get(delivery.source)
        if trusted is None:
            raise UnknownSource
        event = trusted.source.verify(delivery, trusted.keys, delivery.received_at)
        if delivery.token is not None:
            event = self._with_context(event, delivery.token, delivery.received_at)
        return await self.store(event)

    async def store(self, event: Event) -> Accepted:
        """Take in an event that is verified already, such as one fetched from the API."""
        receipt = await self._store.add(event, self._router.match(event))
        return Accepted(event, receipt)

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

    def _with_context(self, event: Event, token: str, now: float) -> Event:
        sealed = self._seal.open(token, now) if self._seal else None
        # A token belongs to one model: one that was moved to another's webhook is refused (F33).
        # A parked event has no model to compare, and is kept.
        if sealed is None or (event.model and sealed.model and event.model != sealed.model):
            raise Unverified("token")
        return replace(event, context=sealed.context)
