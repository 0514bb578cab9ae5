"""The port of a handler: a plug-in that acts on an event.

A handler is an async callable of an Event and a Context. Returning is done (what it returns, if
JSON, is kept as the dispatch's result); raising `Retry` or `GiveUp` says otherwise; any other
exception goes by the handler's retry policy. Delivery is at-least-once: pass `context.key` on as
an idempotency key, or check before you act.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from receiver.event import Dispatch, Event
from receiver.handlers.retry import Backoff
from receiver.handlers.routing import Route


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler knows beside the event.

    Attributes:
        key: stable over retries of this event for this handler: an idempotency key.
        handler: the handler's name in the settings.
        attempt: from 1.
        deadline: Unix seconds; the run is cancelled then.
        earlier: the finished dispatches of the handlers named in `after`, by name, each with its
            `state` (done or dead), `result` and `error`.
    """

    key: str
    handler: str
    attempt: int
    deadline: float
    earlier: Mapping[str, Dispatch] = field(default_factory=dict)


class Handler(Protocol):
    """Acts on an event."""

    async def __call__(self, event: Event, context: Context) -> Any:
        """Act. See the module's docstring for what returning and raising mean."""
        ...


Factory = Callable[[str, Mapping[str, Any]], Handler]
"""The object behind an entry point of the group `wavehook.handlers`.

Called at start with the handler's name and its own settings (all keys of its section that are not
the dispatcher's), `env:` and `file:` already read. It checks them and raises `SettingsError` with
all faults, or `ImportError` naming the extra where an optional package is missing. A handler that
holds connections has an async `close()`; it may be called again after that, on another event loop
(a serverless platform may start and stop the app around every request). One that stands on
something outside has an async `check()`: it tries that, with the credentials it has and without
sending an event, and returns in one sentence what it found, or raises an error whose text says
what is wrong; `wavehook check` calls it, and closes the handler after it. One that needs other
rules than the usual has them as `rules`, a mapping such as `{"timeout": "30m"}`: they hold where
its section does not set that key.
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A handler with the rules under which the dispatcher runs it.

    Attributes:
        route: its name and which events it wants.
        handle: the handler.
        timeout: seconds for one run.
        concurrency: runs at once in this process.
        rate: starts a second, over all processes on one store; None for no limit.
        retry: what happens after a failure.
        close: lets go of what the handler holds, at shutdown.
        check: tries what the handler stands on, without sending an event; see `Factory`.
        hidden: what its settings hold from the environment and from files.
    """

    route: Route
    handle: Handler
    timeout: float = 30.0
    concurrency: int = 16
    rate: float | None = None
    retry: Backoff = field(default_factory=Backoff)
    close: Callable[[], Awaitable[None]] | None = None
    check: Callable[[], Awaitable[str]] | None = None
    hidden: tuple[str, ...] = field(default=(), repr=False)

    @property
    def name(self) -> str:
        """The handler's name in the settings."""
        return self.route.name

    def masked(self, text: str) -> str:
        """What the handler's code says of an error, without its secrets (F16)."""
        return mask(text, self.hidden)


def mask(text: str, hidden: Iterable[str]) -> str:
    """A text to be shown, without what must not be."""
    # Longest first: one may hold another. A word of three letters is no secret, but part of many.
    for each in sorted(hidden, key=len, reverse=True):
        text = text.replace(each, "…") if len(each) > 3 else text
    return text
