"""One event of the reference Store with all that belongs to it, and what can happen to it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import assert_never

from receiver.event import (
    Attempt,
    Claim,
    Dead,
    Dispatch,
    DispatchState,
    Done,
    Event,
    Outcome,
    Released,
    RetryAt,
)
from receiver.stores.base import Listed, Plan


@dataclass
class Record:
    """One event, its dispatches by handler, and its attempts by handler and number."""

    seq: int
    event: Event
    dispatches: dict[str, Dispatch] = field(default_factory=dict)
    attempts: dict[tuple[str, int], Attempt] = field(default_factory=dict)
    purged: bool = False

    @property
    def open(self) -> bool:
        """Whether there is still something to do."""
        return any(dispatch.state.open for dispatch in self.dispatches.values())

    def given(self) -> Event:
        """The event, sharing nothing that can be changed with the stored one."""
        return replace(self.event, context=deepcopy(self.event.context))

    def listed(self) -> Listed:
        """The event as listings show it."""
        states = {name: dispatch.state for name, dispatch in self.dispatches.items()}
        return Listed(self.seq, self.given(), states)

    def plan(self, plan: Plan, now: float) -> None:
        """Make the dispatches of `plan` new, apart from those that run now."""
        old = self.dispatches
        fresh = [n for n in plan if n not in old or old[n].state is not DispatchState.LEASED]
        for name in fresh:
            number = old[name].attempt if name in old else 0
            pending = Dispatch(self.event.id, name, due_at=now, after=tuple(plan[name]))
            old[name] = replace(pending, attempt=number)
        for name in fresh:
            old[name] = replace(old[name], waiting=self._blocked(plan[name]))

    def held(self, dispatch: Dispatch, owner: str) -> Dispatch | None:
        """The stored dispatch, where its lease is still this attempt's of this owner."""
        now = self.dispatches.get(dispatch.handler)
        if now is None or now.state is not DispatchState.LEASED:
            return None
        return now if (now.owner, now.attempt) == (owner, dispatch.attempt) else None

    def lease(self, dispatch: Dispatch, owner: str, lease: float, now: float) -> Claim:
        """Begin the next attempt of a dispatch."""
        if dispatch.state is DispatchState.LEASED:
            self._end(dispatch, "lost", now, None)
        number = dispatch.attempt + 1
        taken = replace(dispatch, state=DispatchState.LEASED, owner=owner, due_at=now + lease)
        taken = replace(taken, attempt=number, tries=dispatch.tries + 1)
        self.dispatches[taken.handler] = taken
        self.attempts[taken.handler, number] = Attempt(taken.handler, number, owner, now)
        return Claim(taken, self.given(), self._finished(taken.after))

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
        """Forget all that was said and done; what is left is the key and the states."""
        self.purged = True
        self.event = replace(self.event, body=b"", context=None)
        self.attempts.clear()
        for name, dispatch in self.dispatches.items():
            self.dispatches[name] = replace(dispatch, result=None)

    def _blocked(self, after: tuple[str, ...]) -> bool:
        """Whether one of these handlers has not come to an end."""
        return any(name in self.dispatches and self.dispatches[name].state.open for name in after)

    def _finished(self, names: tuple[str, ...]) -> dict[str, Dispatch]:
        """Those of these handlers that have come to an end."""
        found = (self.dispatches[name] for name in names if name in self.dispatches)
        return {one.handler: own(one) for one in found if not one.state.open}

    def _end(self, dispatch: Dispatch, outcome: str, now: float, error: str | None) -> None:
        key = dispatch.handler, dispatch.attempt
        ended = replace(self.attempts[key], ended_at=now, outcome=outcome, error=error)
        self.attempts[key] = ended


def own(dispatch: Dispatch) -> Dispatch:
    """A dispatch that shares nothing that can be changed with the stored one."""
    return replace(dispatch, result=deepcopy(dispatch.result))
