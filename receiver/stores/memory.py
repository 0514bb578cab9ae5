"""The reference Store: plain dictionaries, easily seen to be right; others are compared with it."""

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


@dataclass
class _Record:
    """One event with all that belongs to it."""

    seq: int
    event: Event
    dispatches: dict[str, Dispatch] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    purged: bool = False

    def blocked(self, after: tuple[str, ...]) -> bool:
        """Whether one of these handlers has not come to an end."""
        return any(name in self.dispatches and self.dispatches[name].state.open for name in after)

    def finished(self, names: tuple[str, ...]) -> dict[str, Dispatch]:
        """Those of these handlers that have come to an end."""
        found = (self.dispatches[name] for name in names if name in self.dispatches)
        return {one.handler: _own(one) for one in found if not one.state.open}

    def purge(self) -> None:
        """Forget all that was said and done; what is left is the key and the states."""
        self.purged = True
        self.event = replace(self.event, body=b"", context=None)
        self.attempts.clear()
        for name, dispatch in self.dispatches.items():
            self.dispatches[name] = replace(dispatch, result=None)


class MemoryStore(Store):
    """An inbox in this process's memory, and gone with it; for tests and for comparison.

    One event loop uses it. No method awaits anything, so each is atomic as it stands.
    """

    def __init__(self) -> None:
        self._records: dict[str, _Record] = {}
        self._unfinished: dict[str, _Record] = {}
        self._paused: dict[str, float] = {}
        self._wakes: list[Callable[[], None]] = []
        self._seq = 0
        self._opened = False

    async def open(self) -> None:
        """Start to answer."""
        self._opened = True

    async def close(self) -> None:
        """Stop to answer; `open` brings everything back."""
        self._opened = False

    async def ping(self) -> None:
        """Return if open."""
        self._check()

    def subscribe(self, wake: Callable[[], None]) -> None:
        """Call `wake` when a dispatch became claimable."""
        self._wakes.append(wake)

    async def add(self, event: Event, plan: Plan) -> Receipt:
        """Store an event with a pending dispatch for every handler of `plan`."""
        self._check()
        if event.id in self._records:
            return Receipt(event.id, duplicate=True)
        self._seq += 1
        record = self._records[event.id] = _Record(self._seq, _copy(event))
        self._plan(record, plan, event.received_at)
        return Receipt(event.id, duplicate=False)

    async def claim(
        self, owner: str, limits: Mapping[str, int], lease: float, now: float
    ) -> list[Claim]:
        """Lease due dispatches, longest due first."""
        self._check()
        left = {name: n for name, n in limits.items() if self._paused.get(name, now) <= now}
        due = [
            (record, dispatch)
            for record, dispatch in self._claimable()
            if dispatch.handler in left and dispatch.due_at <= now
        ]
        claims = []
        for record, dispatch in sorted(due, key=lambda pair: (pair[1].due_at, pair[0].seq)):
            if left[dispatch.handler] > 0:
                left[dispatch.handler] -= 1
                claims.append(self._lease(record, dispatch, owner, lease, now))
        return claims

    async def extend(
        self, dispatches: Sequence[Dispatch], owner: str, lease: float, now: float
    ) -> list[Dispatch]:
        """Renew leases until `now + lease`; returns those that were lost."""
        self._check()
        lost = []
        for dispatch in dispatches:
            if record := self._held(dispatch, owner):
                held = record.dispatches[dispatch.handler]
                self._put(record, replace(held, due_at=now + lease))
            else:
                lost.append(dispatch)
        return lost

    async def settle(self, dispatch: Dispatch, owner: str, outcome: Outcome, now: float) -> bool:
        """Record what an attempt came to, and free the dispatches that waited for it."""
        self._check()
        record = self._held(dispatch, owner)
        if record is None:
            return False
        held = record.dispatches[dispatch.handler]
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
        self._end(record, held, word, now, error)
        settled_at = None if held.state.open else now
        self._put(record, replace(held, owner=None, error=error, settled_at=settled_at))
        self._free(record, now)
        self._wake()
        return True

    async def pause(self, handler: str, until: float) -> None:
        """Let nobody claim for `handler` before `until`; a pause is never made shorter."""
        self._check()
        self._paused[handler] = max(until, self._paused.get(handler, until))

    async def next_due(self, handlers: Sequence[str]) -> float | None:
        """When the next open dispatch of these handlers is due, if any."""
        self._check()
        due = (
            max(dispatch.due_at, self._paused.get(dispatch.handler, dispatch.due_at))
            for _, dispatch in self._claimable()
            if dispatch.handler in handlers
        )
        return min(due, default=None)

    async def event(self, event_id: str) -> Event | None:
        """One event by its id."""
        self._check()
        record = self._records.get(event_id)
        return _copy(record.event) if record else None

    async def events(
        self, *, limit: int = 50, before: int | None = None, type: str | None = None
    ) -> list[Listed]:
        """Stored events, newest first."""
        self._check()
        found = (
            record
            for record in reversed(self._records.values())
            if (before is None or record.seq < before) and type in (None, record.event.type)
        )
        return [
            Listed(one.seq, _copy(one.event), {k: v.state for k, v in one.dispatches.items()})
            for one in islice(found, limit)
        ]

    async def dispatches(self, event_id: str) -> list[Dispatch]:
        """The dispatches of one event, by handler name."""
        self._check()
        record = self._records.get(event_id)
        found = record.dispatches if record else {}
        return [_own(found[name]) for name in sorted(found)]

    async def attempts(self, event_id: str) -> list[Attempt]:
        """The attempts of one event, in order of handler and number."""
        self._check()
        record = self._records.get(event_id)
        found = record.attempts if record else {}
        return [found[key] for key in sorted(found)]

    async def dead(self, *, limit: int = 50) -> list[Dispatch]:
        """Dead dispatches, latest first."""
        self._check()
        found = [one for one in self._newest_first() if one.state is DispatchState.DEAD]
        found.sort(key=lambda one: one.settled_at or 0.0, reverse=True)
        return found[:limit]

    async def retry(self, event_id: str, handler: str, now: float) -> bool:
        """Make a dead dispatch pending, with a fresh count of tries."""
        self._check()
        record, dispatch = self._find(event_id, handler)
        if record is None or dispatch is None or dispatch.state is not DispatchState.DEAD:
            return False
        pending = replace(dispatch, state=DispatchState.PENDING, tries=0, settled_at=None)
        self._put(record, replace(pending, due_at=now))
        self._wake()
        return True

    async def redeliver(self, event_id: str, plan: Plan, now: float) -> bool:
        """Let the handlers of `plan` run again for a stored event, leased ones left alone."""
        self._check()
        record = self._records.get(event_id)
        if record is None:
            return False
        self._plan(record, plan, now)
        return True

    async def purge(self, *, before: float, now: float) -> Purged:
        """Remove what is old."""
        self._check()
        key_ends = now - KEY_DAYS * 86400
        payloads = events = 0
        for event_id, record in list(self._records.items()):
            received_at = record.event.received_at
            if received_at >= before or event_id in self._unfinished:
                continue
            if received_at < key_ends:
                del self._records[event_id]
                events += 1
            else:
                payloads += not record.purged
                record.purge()
        return Purged(payloads, events)

    async def stats(self) -> Stats:
        """How the queue stands now."""
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

    def _find(self, event_id: str, handler: str) -> tuple[_Record | None, Dispatch | None]:
        record = self._records.get(event_id)
        return record, record.dispatches.get(handler) if record else None

    def _held(self, dispatch: Dispatch, owner: str) -> _Record | None:
        """The record of a dispatch whose lease is still this attempt's of this owner."""
        record, now = self._find(dispatch.event_id, dispatch.handler)
        if now is None or now.state is not DispatchState.LEASED:
            return None
        return record if (now.owner, now.attempt) == (owner, dispatch.attempt) else None

    def _lease(
        self, record: _Record, dispatch: Dispatch, owner: str, lease: float, now: float
    ) -> Claim:
        if dispatch.state is DispatchState.LEASED:
            self._end(record, dispatch, "lost", now, None)
        number = dispatch.attempt + 1
        taken = replace(dispatch, state=DispatchState.LEASED, owner=owner, due_at=now + lease)
        taken = replace(taken, attempt=number, tries=dispatch.tries + 1)
        self._put(record, taken)
        record.attempts[taken.handler, number] = Attempt(taken.handler, number, owner, now)
        return Claim(taken, _copy(record.event), record.finished(taken.after))

    def _end(
        self, record: _Record, dispatch: Dispatch, outcome: str, now: float, error: str | None
    ) -> None:
        key = dispatch.handler, dispatch.attempt
        attempt = record.attempts[key]
        record.attempts[key] = replace(attempt, ended_at=now, outcome=outcome, error=error)

    def _free(self, record: _Record, now: float) -> None:
        """Let those run that waited and no longer have to."""
        for dispatch in list(record.dispatches.values()):
            if dispatch.waiting and not record.blocked(dispatch.after):
                self._put(record, replace(dispatch, waiting=False, due_at=now))

    def _plan(self, record: _Record, plan: Plan, now: float) -> None:
        """Make the dispatches of `plan` new, apart from those that run now."""
        old = record.dispatches
        fresh = [n for n in plan if n not in old or old[n].state is not DispatchState.LEASED]
        for name in fresh:
            number = old[name].attempt if name in old else 0
            pending = Dispatch(record.event.id, name, due_at=now, after=tuple(plan[name]))
            self._put(record, replace(pending, attempt=number))
        for name in fresh:
            waiting = record.blocked(plan[name])
            self._put(record, replace(record.dispatches[name], waiting=waiting))
        self._wake()

    def _put(self, record: _Record, dispatch: Dispatch) -> None:
        record.dispatches[dispatch.handler] = dispatch
        if any(other.state.open for other in record.dispatches.values()):
            self._unfinished[record.event.id] = record
        else:
            self._unfinished.pop(record.event.id, None)

    def _wake(self) -> None:
        for wake in self._wakes:
            wake()


def _copy(event: Event) -> Event:
    """An event that shares nothing that can be changed with the stored one."""
    return replace(event, context=deepcopy(event.context))


def _own(dispatch: Dispatch) -> Dispatch:
    """A dispatch that shares nothing that can be changed with the stored one."""
    return replace(dispatch, result=deepcopy(dispatch.result))
