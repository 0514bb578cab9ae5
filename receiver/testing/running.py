"""`run_handler`: one event through the real dispatcher, without waiting between attempts."""

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
from receiver.handlers.settings import DispatchRules
from receiver.stores.memory import MemoryStore
from receiver.testing.events import Earlier
from receiver.testing.events import event as an_event
from submitter.prediction import JSON

Function = Callable[[Event, Context], Coroutine[Any, Any, Any]]


@dataclass(frozen=True, slots=True)
class Run:
    """Outcome of `run_handler`.

    Attributes:
        state: `done` or `dead`; None if the handler's `@on` does not match the event.
        attempts: in order, each with `number`, `started_at`, `outcome` and `error`.
        waited: seconds before the second and each later attempt, from the retry policy or the
            handler's own `Retry`.
        result: the return value, if it is JSON and small enough to be stored.
        error: text of the last attempt's error.
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

    Each attempt runs in real time; between attempts the dispatcher's clock jumps to the next one.
    The handler is closed at the end. Errors of the handler do not raise here: they are in the
    returned `Run`.

    Args:
        handler: an async callable, a function decorated by `@on` (with its own rules), or an
            installed handler.
        event: by default a completed prediction.
        earlier: outcomes of handlers that this one runs `after`, by name: the result of a done
            one, or the error of a dead one.
        retry: a policy in place of the handler's own.
        timeout: seconds of real time for one attempt, in place of the handler's own.
        random: returns a number from 0 to 1 for the jitter; by default 1, the longest wait.

    Returns:
        State, attempts, waits and result.

    Raises:
        SettingsError: the rules of an `@on` are faulty.
        pydantic.ValidationError: the handler's own `rules` are faulty.
    """
    event = event or an_event()
    # From the real time on: a handler may compare its deadline with the real clock.
    now = max(time.time(), event.received_at)
    outcomes = earlier or {}
    installed = _installed(handler, outcomes, timeout)
    policy = _RecordingBackoff.of(retry or installed.retry)
    installed = replace(installed, retry=policy)
    handlers = [installed, *(_stand_in(name, each) for name, each in outcomes.items())]
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
        made = DispatchRules.model_validate(own).install("handler", cast("Handler", handler))
        handler = marked(handler) or made
    after = tuple(dict.fromkeys((*handler.route.after, *earlier)))
    return replace(
        handler,
        route=replace(handler.route, after=after),
        timeout=handler.timeout if timeout is None else timeout,
        rate=None,  # a single event never exceeds a rate
    )


def _stand_in(name: str, outcome: JSON | Exception) -> Installed:
    """A handler in `after` that ends with a given outcome."""

    async def settle(event: Event, context: Context) -> JSON:  # noqa: ARG001 - the port of handlers
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return Installed(Route(name, on=("*", PARKED)), settle, retry=Backoff(attempts=1))


@dataclass(frozen=True, slots=True)
class _RecordingBackoff(Backoff):
    """A retry policy that records its waits."""

    policy: Backoff = field(default_factory=Backoff)
    waits: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, policy: Backoff) -> _RecordingBackoff:
        return cls(policy.attempts, policy.base, policy.cap, policy)

    def next(
        self, tries: int, error: BaseException, now: float, random: Callable[[], float]
    ) -> RetryAt | Dead:
        decided = self.policy.next(tries, error, now, random)
        if isinstance(decided, RetryAt):
            # Rounded to microseconds: floats of Unix seconds are not more exact.
            self.waits.append(round(decided.at - now, 6))
        return decided


async def _read(store: MemoryStore, event: Event, name: str, waited: Iterable[float]) -> Run:
    found = {each.handler: each for each in await store.dispatches(event.id)}
    if name not in found:
        return Run(None)
    attempts = [each for each in await store.attempts(event.id) if each.handler == name]
    last = found[name]
    return Run(last.state, tuple(attempts), tuple(waited), last.result, last.error)
