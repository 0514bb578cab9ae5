"""Reference store: plain dictionaries, with which the other backends are compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import assert_never

from receiver.errors import StoreUnavailable
from receiver.event import (
    Attempt,
    Claim,
    Dead,
    Dispatch,
    DispatchState,
    Done,
    Event,
    Outcome,
    Receipt,
    Released,
    RetryAt,
)
from receiver.stores.base import KEY_DAYS, Listed, Plan, Purged, Stats, Store
from receiver.stores.rate_limit import NEVER, available_permits, clamp_clock_step, consume


@dataclass
class _Record:
    """One event, its dispatches by handler, and its attempts by handler and number."""

    seq: int
    event: Event
    dispatches: dict[str, Dispatch] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    purged: bool = False

    @property
    def open(self) -> bool:
        """True while a dispatch is open."""
        return any(dispatch.state.open for dispatch in self.dispatches.values())

    def copy(self) -> Event:
        """A copy of the event."""
        return replace(self.event, context=deepcopy(self.event.context))

    def listed(self) -> Listed:
        """The event's row in a listing."""
        states = {name: dispatch.state for name, dispatch in self.dispatches.items()}
        return Listed(self.seq, self.copy(), states)

    def plan(self, plan: Plan, now: float) -> None:
        """Make the dispatches of `plan` pending, apart from those that hold a lease."""
        old = self.dispatches
        fresh = [n for n in plan if n not in old or old[n].state is not DispatchState.LEASED]
        for name in fresh:
            number = old[name].attempt if name in old else 0
            pending = Dispatch(self.event.id, name, due_at=now, after=tuple(plan[name]))
            old[name] = replace(pending, attempt=number)
        for name in fresh:
            old[name] = replace(old[name], waiting=self._blocked(plan[name]))

    def held(self, dispatch: Dispatch, owner: str) -> Dispatch | None:
        """The stored dispatch, if this owner still holds this attempt's lease."""
        now = self.dispatches.get(dispatch.handler)
        if now is None or now.state is not DispatchState.LEASED:
            return None
        return now if (now.owner, now.attempt) == (owner, dispatch.attempt) else None

    def lease(self, dispatch: Dispatch, owner: str, lease: float, now: float) -> Claim:
        """Lease a dispatch for its next attempt."""
        if dispatch.state is DispatchState.LEASED:
            self._end(dispatch, "lost", now, None)
        number = dispatch.attempt + 1
        taken = replace(dispatch, state=DispatchState.LEASED, owner=owner, due_at=now + lease)
        taken = replace(taken, attempt=number, tries=dispatch.tries + 1)
        self.dispatches[taken.handler] = taken
        self.attempts[taken.handler, number] = Attempt(taken.handler, number, owner, now)
        return Claim(taken, self.copy(), self._finished(taken.after))

    def settle(self, held: Dispatch, outcome: Outcome, now: float) -> None:
        """End an attempt, and free the dispatches that waited for it."""
        match outcome:
            case Done(result):
                word, error = "done", None
                held = replace(held, state=DispatchState.DONE, result=deepcopy(result))
            case RetryAt(at, error):
                word = "retry"
                held = replace(held, state=DispatchState.PENDING, due_at=at)
            case Dead(error):
                word = "dead"
                held = replace(held, state=DispatchState.DEAD)
            case Released():
                word, error, tries = "released", None, held.tries - 1
                held = replace(held, state=DispatchState.PENDING, due_at=now, tries=tries)
            case _:
                assert_never(outcome)
        self._end(held, word, now, error)
        settled_at = None if held.state.open else now
        held = replace(held, owner=None, error=error, settled_at=settled_at)
        self.dispatches[held.handler] = held
        for name, dispatch in self.dispatches.items():
            if dispatch.waiting and not self._blocked(dispatch.after):
                self.dispatches[name] = replace(dispatch, waiting=False, due_at=now)

    def purge(self) -> None:
        """Remove payload, results and attempts; the key and the states stay."""
        self.purged = True
        self.event = replace(self.event, body=b"", context=None)
        self.attempts.clear()
        for name, dispatch in self.dispatches.items():
            self.dispatches[name] = replace(dispatch, result=None)

    def _blocked(self, after: tuple[str, ...]) -> bool:
        """True while a dispatch of one of these handlers is open."""
        return any(name in self.dispatches and self.dispatches[name].state.open for name in after)

    def _finished(self, names: tuple[str, ...]) -> dict[str, Dispatch]:
        """The dispatches of these handlers that are done or dead."""
        found = (self.dispatches[name] for name in names if name in self.dispatches)
        return {one.handler: _copy_dispatch(one) for one in found if not one.state.open}

    def _end(self, dispatch: Dispatch, outcome: str, now: float, error: str | None) -> None:
        key = dispatch.handler, dispatch.attempt
        ended = replace(self.attempts[key], ended_at=now, outcome=outcome, error=error)
        self.attempts[key] = ended


def _copy_dispatch(dispatch: Dispatch) -> Dispatch:
    """A copy of a dispatch."""
    return replace(dispatch, result=deepcopy(dispatch.result))


class MemoryStore(Store):
    """Store in this process's memory, and gone with it; for tests and for comparison.

    One event loop uses it. No method suspends, so each is atomic.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._unfinished: dict[str, _Record] = {}
        self._paused: dict[str, float] = {}
        self._next_at: dict[str, float] = {}
        self._wakes: list[Callable[[], None]] = []
        self._seq = 0
        self._opened = False

    async def open(self) -> None:
        self._opened = True

    async def close(self) -> None:
        self._opened = False

    async def ping(self) -> None:
        self._check()

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._wakes.append(wake)

    async def add(self, event: Event, plan: Plan) -> Receipt:
        self._check()
        if event.id in self._records:
            return Receipt(event.id, duplicate=True)
        self._seq += 1
        record = self._records[event.id] = _Record(self._seq, event)
        # The caller may change the context of its event.
        record.event = record.copy()
        self._plan(record, plan, event.received_at)
        return Receipt(event.id, duplicate=False)

    async def claim(
        self,
        owner: str,
        limits: Mapping[str, int],
        lease: float,
        now: float,
        rates: Mapping[str, float] = {},
    ) -> list[Claim]:
        self._check()
        left = {
            name: most
            for name, most in limits.items()
            if most > 0 and self._paused.get(name, now) <= now
        }
        due = [
            (record, dispatch)
            for record, dispatch in self._claimable()
            if dispatch.handler in left and dispatch.due_at <= now
        ]
        metered = {dispatch.handler for _, dispatch in due} & rates.keys()
        for name in metered:
            next_at = clamp_clock_step(self._next_at.get(name, NEVER), rates[name], now)
            self._next_at[name] = next_at
            left[name] = min(left[name], available_permits(next_at, rates[name], now))
        claims = []
        for record, dispatch in sorted(due, key=lambda pair: (pair[1].due_at, pair[0].seq)):
            if left[dispatch.handler] > 0:
                left[dispatch.handler] -= 1
                claims.append(record.lease(dispatch, owner, lease, now))
        taken = Counter(claim.dispatch.handler for claim in claims)
        for name in metered & taken.keys():
            self._next_at[name] = consume(self._next_at[name], rates[name], now, taken[name])
        return claims

    async def extend(
        self, dispatches: Sequence[Dispatch], owner: str, lease: float, now: float
    ) -> list[Dispatch]:
        self._check()
        lost = []
        for dispatch in dispatches:
            record = self._records.get(dispatch.event_id)
            if record is not None and (held := record.held(dispatch, owner)):
                record.dispatches[held.handler] = replace(held, due_at=now + lease)
            else:
                lost.append(dispatch)
        return lost

    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        self._check()
        record = self._records.get(dispatch.event_id)
        held = record.held(dispatch, owner) if record else None
        if record is None or held is None:
            return False
        record.settle(held, outcome, now)
        self._changed(record)
        self._wake()
        return True

    async def pause(self, handler: str, until: float) -> None:
        self._check()
        self._paused[handler] = max(until, self._paused.get(handler, until))

    async def next_due(self, handlers: Sequence[str]) -> float | None:
        self._check()
        holds = self._paused, self._next_at
        due = (
            max(dispatch.due_at, *(held.get(dispatch.handler, NEVER) for held in holds))
            for _, dispatch in self._claimable()
            if dispatch.handler in handlers
        )
        return min(due, default=None)

    async def event(self, event_id: str) -> Event | None:
        self._check()
        record = self._records.get(event_id)
        return record.copy() if record else None

    async def find(self, ids: Sequence[str]) -> dict[str, Event]:
        self._check()
        return {id: self._records[id].copy() for id in ids if id in self._records}

    async def events(
        self, *, limit: int = 50, before: int | None = None, type: str | None = None
    ) -> list[Listed]:
        self._check()
        found = (
            record
            for record in reversed(self._records.values())
            if (before is None or record.seq < before) and type in (None, record.event.type)
        )
        return [record.listed() for record in islice(found, limit)]

    async def since(self, after: int, *, limit: int = 100) -> list[Listed]:
        self._check()
        found = (record for record in self._records.values() if record.seq > after)
        return [record.listed() for record in islice(found, limit)]

    async def last_seq(self) -> int:
        self._check()
        return self._seq

    async def dispatches(self, event_id: str) -> list[Dispatch]:
        self._check()
        record = self._records.get(event_id)
        found = record.dispatches if record else {}
        return [_copy_dispatch(found[name]) for name in sorted(found)]

    async def attempts(self, event_id: str) -> list[Attempt]:
        self._check()
        record = self._records.get(event_id)
        found = record.attempts if record else {}
        return [found[key] for key in sorted(found)]

    async def dead(self, *, limit: int = 50) -> list[Dispatch]:
        self._check()
        found = [one for one in self._newest_first() if one.state is DispatchState.DEAD]
        found.sort(key=lambda one: one.settled_at or 0.0, reverse=True)
        return found[:limit]

    async def retry(self, event_id: str, handler: str, now: float) -> bool:
        self._check()
        record = self._records.get(event_id)
        dispatch = record.dispatches.get(handler) if record else None
        if record is None or dispatch is None or dispatch.state is not DispatchState.DEAD:
            return False
        pending = replace(dispatch, state=DispatchState.PENDING, tries=0, settled_at=None)
        record.dispatches[handler] = replace(pending, due_at=now)
        self._changed(record)
        self._wake()
        return True

    async def redeliver(self, event_id: str, plan: Plan, now: float) -> bool:
        self._check()
        record = self._records.get(event_id)
        if record is None:
            return False
        self._plan(record, plan, now)
        return True

    async def purge(self, *, before: float, now: float) -> Purged:
        self._check()
        key_ends = now - KEY_DAYS * 86400
        payloads = events = 0
        for event_id, record in list(self._records.items()):
            received_at = record.event.received_at
            if received_at >= before or event_id in self._unfinished:
                continue
            # The newest stays, so that no number is ever given twice (promise 9).
            if received_at < key_ends and record.seq < self._seq:
                del self._records[event_id]
                events += 1
            else:
                payloads += not record.purged
                record.purge()
        return Purged(payloads, events)

    async def stats(self) -> Stats:
        self._check()
        depth: Counter[tuple[str, DispatchState]] = Counter(
            (dispatch.handler, dispatch.state)
            for dispatch in self._newest_first()
            if dispatch.state is not DispatchState.DONE
        )
        received = (record.event.received_at for record in self._unfinished.values())
        return Stats(depth, min(received, default=None))

    def _check(self) -> None:
        if not self._opened:
            raise StoreUnavailable("The store is closed; call open() first.")

    def _newest_first(self) -> Iterator[Dispatch]:
        for record in reversed(self._records.values()):
            yield from sorted(record.dispatches.values(), key=lambda one: one.handler)

    def _claimable(self) -> Iterator[tuple[_Record, Dispatch]]:
        """Every dispatch that time alone keeps from being claimed."""
        for record in self._unfinished.values():
            for dispatch in record.dispatches.values():
                if dispatch.state.open and not dispatch.waiting:
                    yield record, dispatch

    def _plan(self, record: _Record, plan: Plan, now: float) -> None:
        record.plan(plan, now)
        self._changed(record)
        self._wake()

    def _changed(self, record: _Record) -> None:
        """Keep the index of what is unfinished."""
        if record.open:
            self._unfinished[record.event.id] = record
        else:
            self._unfinished.pop(record.event.id, None)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()
