"""One event, one handler, the real dispatcher, and time that does not have to pass."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field, replace
from typing import Any, cast

from receiver.dispatch.dispatcher import Dispatcher
from receiver.event import PARKED, Attempt, Dead, DispatchState, Event, RetryAt
from receiver.handlers.base import Context, Handler, Installed
from receiver.handlers.decorator import marked
from receiver.handlers.retry import Backoff
from receiver.handlers.routing import Route, match
from receiver.handlers.settings import Rules
from receiver.stores.memory import MemoryStore
from receiver.testing.events import Earlier
from receiver.testing.events import event as an_event
from submitter.prediction import JSON

Function = Callable[[Event, Context], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """What a handler came to with one event.

    Attributes:
        state: `done` or `dead`; None where its `@on` does not want the event.
        attempts: in order, each with `number`, `started_at`, `outcome` and `error`.
        waited: seconds before the second attempt and each one after it, as the retry policy or
            the handler's own `Retry` had it.
        result: what it returned, where that is JSON that is kept.
        error: of the last attempt.
    """

    state: DispatchState | None
    attempts: tuple[Attempt, ...] = ()
    waited: tuple[float, ...] = ()
    result: JSON = None
    error: str | None = None


async def run_handler(
    handler: Function | Installed,
    event: Event | None = None,
    *,
    earlier: Earlier | None = None,
    retry: Backoff | None = None,
    timeout: float | None = None,
    random: Callable[[], float] = lambda: 1.0,
) -> Run:
    """Run a handler until it is done or dead, without waiting between its attempts.

    The handler runs in real time, and is closed at the end; from one attempt to the next the
    dispatcher's clock jumps.

    Args:
        handler: an async callable, a function decorated by `@on`, whose own rules hold, or an
            installed handler.
        event: a completed prediction, unless given.
        earlier: what handlers that this one comes `after` came to, by name: the result of one
            that is done, or the error of one that died.
        retry: instead of the handler's own policy.
        timeout: seconds, of real time, for one attempt; instead of the handler's own.
        random: gives a number from 0 to 1 for the jitter; unless given, every wait is the longest.
    """
    event = event or an_event()
    # A handler that looks at the real clock finds its deadline ahead of it.
    now = max(time.time(), event.received_at)
    came = earlier or {}
    installed = _installed(handler, came, timeout)
    policy = _Noting.of(retry or installed.retry)
    installed = replace(installed, retry=policy)
    handlers = [installed, *(_stand_in(name, each) for name, each in came.items())]
    store = MemoryStore()
    await store.open()
    await store.add(event, match(event, [each.route for each in handlers]))
    dispatcher = Dispatcher(
        store, handlers, owner="receiver.testing", clock=lambda: now, random=random
    )
    try:
        due: float | None = now
        while due is not None:
            now = max(now, due)
            await dispatcher.drain()
            due = await store.next_due([each.name for each in handlers])
    finally:
        await dispatcher.stop(0)
    return await _read(store, event, installed.name, policy.waits)


def _installed(handler: Function | Installed, earlier: Earlier, timeout: float | None) -> Installed:
    if not isinstance(handler, Installed):
        own = {"on": ("*", PARKED), **getattr(handler, "rules", {})}
        made = Rules.model_validate(own).install("handler", cast("Handler", handler))
        handler = marked(handler) or made
    after = tuple(dict.fromkeys((*handler.route.after, *earlier)))
    return replace(
        handler,
        route=replace(handler.route, after=after),
        timeout=handler.timeout if timeout is None else timeout,
        rate=None,  # one event is never too many
    )


def _stand_in(name: str, came: JSON | Exception) -> Installed:
    """An earlier handler that has done its part."""

    async def settle(event: Event, context: Context) -> JSON:  # noqa: ARG001 - a handler's own
        if isinstance(came, Exception):
            raise came
        return came

    return Installed(Route(name, on=("*", PARKED)), settle, retry=Backoff(attempts=1))


@dataclass(frozen=True, slots=True)
class _Noting(Backoff):
    """A retry policy, with what it decided."""

    policy: Backoff = field(default_factory=Backoff)
    waits: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, policy: Backoff) -> _Noting:
        return cls(policy.attempts, policy.base, policy.cap, policy)

    def next(
        self, tries: int, error: BaseException, now: float, random: Callable[[], float]
    ) -> RetryAt | Dead:
        decided = self.policy.next(tries, error, now, random)
        if isinstance(decided, RetryAt):
            # To the microsecond; below it a sum of Unix seconds is noise.
            self.waits.append(round(decided.at - now, 6))
        return decided


async def _read(store: MemoryStore, event: Event, name: str, waited: Iterable[float]) -> Run:
    found = {each.handler: each for each in await store.dispatches(event.id)}
    if name not in found:
        return Run(None)
    attempts = [each for each in await store.attempts(event.id) if each.handler == name]
    last = found[name]
    return Run(last.state, tuple(attempts), tuple(waited), last.result, last.error)
