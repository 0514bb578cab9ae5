"""Intake: the only way in. HTTP, Lambda, reconcile and replay all end here."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from receiver.errors import Stale, StoreUnavailable, UnknownSource, Unverified
from receiver.event import Delivery, Event, Receipt
from receiver.handlers.routing import Route, Router
from receiver.sources.base import WAVESPEED, Source, fetched_event, terminal_ids
from receiver.stores.base import Store
from submitter.errors import LedgerUnavailable
from submitter.prediction import Prediction

if TYPE_CHECKING:
    from submitter.ledger.base import Ledger
    from submitter.submit.context_token import Seal, Sealed

Fetch = Callable[[str], Awaitable[Prediction | None]]
"""Fetches a task from the API by its id, within a timeout; None if the API does not know it.

Raises ApiUnavailable if the API does not answer.
"""


@dataclass(frozen=True, slots=True)
class TrustedSource:
    """A source with the keys that verify its deliveries."""

    source: Source[Any]
    keys: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Accepted:
    """An event that is durably stored.

    Attributes:
        event: the stored event.
        receipt: from the store.
        submission: the key of its submission, if its token names one.
    """

    event: Event
    receipt: Receipt
    submission: str | None = None


class Intake:
    """Verifies, routes and stores.

    Args:
        sources: by the name in the path.
        routes: of all handlers.
        store: the inbox.
        seal: opens URL tokens; without one every token is refused.
        ledger: refuses a token that was made for another task; None skips that check.
        fetch: fetches the task of a stale delivery from WaveSpeedAI's API; without it every stale
            delivery is refused.
        stored: observers, called for every new event once it is stored; they must not block.
    """

    def __init__(
        self,
        sources: Mapping[str, TrustedSource],
        routes: Sequence[Route],
        store: Store,
        seal: Seal | None = None,
        *,
        ledger: Ledger | None = None,
        fetch: Fetch | None = None,
        stored: Sequence[Callable[[Accepted], None]] = (),
    ) -> None:
        self.sources = sources
        self._router = Router(routes)
        self._store = store
        self._seal = seal
        self._ledger = ledger
        self._fetch = fetch
        self._stored = tuple(stored)

    async def accept(self, delivery: Delivery) -> Accepted:
        """Verify and store a delivery; when this returns, its event is on disk.

        Raises:
            Rejected: it is refused, with the HTTP status. Nothing was read or written, apart from
                a look-up in the ledger if a verified delivery's token names a submission.
            StoreUnavailable: it is not stored; the sender must retry.
            ApiUnavailable: it is stale, and the API did not answer; the sender must retry.
        """
        trusted = self.sources.get(delivery.source)
        if trusted is None:
            raise UnknownSource
        try:
            event = trusted.source.verify(delivery, trusted.keys, delivery.received_at)
        except Stale as stale:
            if self._fetch is None or stale.subject is None or delivery.source != WAVESPEED:
                raise
            return await self._accept_stale(delivery, stale, stale.subject, self._fetch)
        if delivery.token is None:
            return await self.store(event)
        sealed = self._open(delivery.token, delivery.received_at)
        event = _in_context(event, sealed)
        if self._ledger is not None and sealed.submission is not None:
            await self._check_owner(self._ledger, sealed.submission, event.subject)
        return await self.store(event, sealed.submission)

    async def store(self, event: Event, submission: str | None = None) -> Accepted:
        """Route and store a verified event, such as one fetched from the API.

        Args:
            event: verified.
            submission: the key of its submission, if known.
        """
        receipt = await self._store.add(event, self._router.match(event))
        accepted = Accepted(event, receipt, submission)
        if not receipt.duplicate:
            for observe in self._stored:
                observe(accepted)
        return accepted

    async def replay(self, event_id: str, now: float, handlers: Sequence[str] = ()) -> bool:
        """Run handlers again for a stored event.

        Args:
            event_id: the event's id.
            now: Unix seconds.
            handlers: their names; empty for all whose route matches the event now.

        Returns:
            False if the event does not exist.
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

    async def _accept_stale(
        self, delivery: Delivery, stale: Stale, subject: str, fetch: Fetch
    ) -> Accepted:
        """Store the result of a stale delivery's task as the API has it; its body is ignored.

        It may be a replay by a stranger, or a genuine retry that carries its first timestamp. The
        API's answer is right in both cases.
        """
        sealed = None
        if delivery.token is not None:
            sealed = self._open(delivery.token, delivery.received_at)
            if self._ledger is not None and sealed.submission is not None:
                await self._check_owner(self._ledger, sealed.submission, subject)
        stored = await self._store.find(terminal_ids(subject))
        for event in stored.values():
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

    async def _check_owner(self, ledger: Ledger, key: str, subject: str | None) -> None:
        """Refuse a token that was moved to the webhook of another task of its model.

        The task is accepted while the ledger cannot be sure: it does not know the task yet (the
        webhook can be faster than the response to the submit), the task was guessed from the
        history, or the submit was sent again because the first task seemed not to exist.
        """
        try:
            entry = (await ledger.find([key])).get(key)
        except LedgerUnavailable as error:
            raise StoreUnavailable(str(error)) from error
        if entry is None or entry.guessed or entry.tries > 1 or subject is None:
            return
        if entry.task_id not in {None, subject}:
            raise Unverified("token")


def _in_context(event: Event, sealed: Sealed) -> Event:
    # A token belongs to one model: refused if it was moved to a webhook of another.
    # A parked event has no model to compare, and is kept.
    if event.model and sealed.model and event.model != sealed.model:
        raise Unverified("token")
    return replace(event, context=sealed.context)
