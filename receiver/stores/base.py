"""Port of the store: the durable inbox, which is also the queue.

Its promises, kept by every backend:

1. `add` is atomic: the event and all its dispatches, or nothing. Of parallel adds of one id, in
   one process or many, exactly one receipt says `duplicate=False`.
2. A duplicate receipt means that the original is durably stored.
3. `claim` never gives one dispatch to two owners; it honours the due time, the handlers in
   `after`, a handler's pause, and its rate: over all owners no more leases than the rate allows,
   with a burst of one second's worth at most (of one at least), whatever was left unused.
   A lease counts as a start, also one that is given back. A clock that is set back adds nothing,
   and holds a handler for half a minute longer at most.
4. `settle` is fenced: it changes nothing and returns False if another owner has the lease by now.
5. A dispatch whose lease expired can be claimed again; `extend` renews a lease still owned.
6. Every attempt leaves a row: start, end, outcome, error.
7. `purge` removes payloads by age, never a deduplication key younger than 30 days, never
   anything of an event with open dispatches.
8. Time is an argument everywhere, in Unix seconds.
9. `seq` numbers events in the order in which they become visible, whatever process stores them,
   and no number is given twice: `purge` keeps the newest event's row. So a reader that calls
   `since` with the last `seq` it saw misses nothing.

Every method raises `StoreUnavailable` if the store cannot do its work now (locked, disk full,
read-only, closed). Nothing is changed then, but for a COMMIT whose response was lost: repeating the
call is safe.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from receiver.event import Attempt, Claim, Dispatch, DispatchState, Event, Outcome, Receipt

KEY_DAYS = 30
"""Deduplication keys live at least this many days."""

Plan = Mapping[str, tuple[str, ...]]
"""The handlers of one event, each with the handlers of the same event that it waits for."""


@dataclass(frozen=True, slots=True)
class Stats:
    """State of the queue.

    Attributes:
        depth: the number of dispatches by handler and state, without those done.
        oldest_open: Unix seconds, when the oldest event with an open dispatch was received, with
            no exclusions (delayed, paused and waiting ones count); None if nothing is open.
    """

    depth: Mapping[tuple[str, DispatchState], int]
    oldest_open: float | None


@dataclass(frozen=True, slots=True)
class Listed:
    """One stored event in a listing.

    Attributes:
        seq: its number in the order of arrival, from 1.
        event: the event.
        dispatches: the states of its dispatches, by handler.
    """

    seq: int
    event: Event
    dispatches: Mapping[str, DispatchState]


@dataclass(frozen=True, slots=True)
class Purged:
    """Numbers of payloads, and of whole events with their keys, that one `purge` removed."""

    payloads: int
    events: int


class Store(ABC):
    """Interface of the inbox; the module's docstring has its promises."""

    @abstractmethod
    async def open(self) -> None:
        """Connect, and migrate an empty or older schema.

        Raises:
            SchemaMismatch: a newer version or another program made the database.
            StoreUnavailable: it cannot be opened.
        """

    @abstractmethod
    async def close(self) -> None:
        """Finish pending calls, then disconnect. May be called twice."""

    @abstractmethod
    async def ping(self) -> None:
        """Return if the store takes events now; raise StoreUnavailable if not."""

    @abstractmethod
    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` on the event loop when this process has made a dispatch claimable."""

    @abstractmethod
    async def add(self, event: Event, plan: Plan) -> Receipt:
        """Store an event with a pending dispatch for every handler of `plan`, due at once.

        The first event of an id stays as it is; a duplicate changes nothing.
        """

    @abstractmethod
    async def claim(
        self,
        owner: str,
        limits: Mapping[str, int],
        lease: float,
        now: float,
        rates: Mapping[str, float] = {},
    ) -> list[Claim]:
        """Lease due dispatches, longest due first.

        Args:
            owner: unique to one running dispatcher.
            limits: the number of leases at most, by handler; other handlers get none.
            lease: visibility timeout, seconds.
            now: Unix seconds.
            rates: leases a second, by handler; other handlers are not limited.
        """

    @abstractmethod
    async def extend(
        self, dispatches: Sequence[Dispatch], owner: str, lease: float, now: float
    ) -> list[Dispatch]:
        """Renew leases until `now + lease`; returns those of `dispatches` that were lost."""

    @abstractmethod
    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        """Record the outcome of an attempt, and free the dispatches that waited for it.

        Returns:
            False, and nothing changed, if `owner` does not hold attempt `dispatch.attempt`.
        """

    @abstractmethod
    async def pause(self, handler: str, until: float) -> None:
        """Allow no claims for `handler` before `until`; a pause is never made shorter."""

    @abstractmethod
    async def next_due(self, handlers: Sequence[str]) -> float | None:
        """The time when the next open dispatch of these handlers is due, or its lease ends.

        Not before the end of a pause, nor before the next start by the rate of the handler's last
        claim; None if no dispatch is open.
        """

    @abstractmethod
    async def event(self, event_id: str) -> Event | None:
        """One event by its id."""

    @abstractmethod
    async def events(
        self, *, limit: int = 50, before: int | None = None, type: str | None = None
    ) -> list[Listed]:
        """Stored events, newest first.

        Args:
            limit: the number of events, at most.
            before: only those with a smaller `seq`: the last one of the page before.
            type: only those of this exact type.
        """

    @abstractmethod
    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        """Events by id, of the ids that are stored."""

    @abstractmethod
    async def since(self, after: int, *, limit: int = 100) -> list[Listed]:
        """Stored events in order of arrival.

        Args:
            after: only those with a greater `seq`: the last one of the page before, or 0.
            limit: the number of events, at most.
        """

    @abstractmethod
    async def last_seq(self) -> int:
        """The `seq` of the newest event; 0 if none was ever stored."""

    @abstractmethod
    async def dispatches(self, event_id: str) -> list[Dispatch]:
        """The dispatches of one event, by handler name."""

    @abstractmethod
    async def attempts(self, event_id: str) -> list[Attempt]:
        """The attempts of one event, in order of handler and number."""

    @abstractmethod
    async def dead(self, *, limit: int = 50) -> list[Dispatch]:
        """Dead dispatches, latest first; of one time and event, by handler name."""

    @abstractmethod
    async def retry(self, event_id: str, handler: str, now: float) -> bool:
        """Make a dead dispatch pending, with a fresh count of tries; False if it is not dead."""

    @abstractmethod
    async def redeliver(self, event_id: str, plan: Plan, now: float) -> bool:
        """Run the handlers of `plan` again for a stored event, without those that hold a lease.

        Dispatches that the event did not have yet are added. False if the event is not stored.
        """

    @abstractmethod
    async def purge(self, *, before: float, now: float) -> Purged:
        """Remove old data, in small steps that do not hold up `add`.

        Args:
            before: Unix seconds; payloads and attempts of finished events received earlier go,
                and whole events received both earlier and more than 30 days before `now`,
                apart from the newest.
            now: Unix seconds.
        """

    @abstractmethod
    async def stats(self) -> Stats:
        """The state of the queue now."""
