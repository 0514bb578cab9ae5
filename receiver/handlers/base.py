"""The port of a handler: a plug-in that acts on an event.

A handler is an async callable of an Event and a Context. Returning is done (what it returns, if
JSON, is kept as the dispatch's result); raising `GiveUp` makes it dead, and
`Retry` or any other exception is retried by the handler's retry policy. Delivery is at-least-once:
pass `context.key` on as an idempotency key, or check before you act.
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
    """A handler's run: its idempotency key, its deadline, and the results of earlier handlers.

    Attributes:
        key: the idempotency key: the same in all attempts of this event and handler.
        handler: the handler's name in the settings.
        attempt: the number of the run, from 1.
        deadline: Unix seconds at which the run is cancelled.
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
        """Act; see the module's docstring for what returning and raising mean."""
        ...


Factory = Callable[[str, Mapping[str, Any]], Handler]
"""The object behind an entry point of the group `wavehook.handlers`.

Called at start with the handler's name and its own settings: all keys of its section that are not
the dispatcher's, with `env:` and `file:` replaced by their values. It checks them, and raises
`SettingsError` with all faults, or `ImportError` if an optional package is missing.

A handler may also have:

- `close()`, async, if it holds connections. The handler may be called again afterwards, on another
  event loop: a serverless platform may start and stop the app around every request.
- `check()`, async, if it depends on a service. It tries the service with the handler's credentials,
  without sending an event, and returns one sentence about what it found, or raises an error whose
  text says what is wrong. `wavehook check` calls it, and then `close()`.
- `rules`, a mapping such as `{"timeout": "30m"}`: its defaults for the dispatcher's keys.
"""


@dataclass(frozen=True, slots=True)
class Installed:
    """A handler, and the rules by which the dispatcher runs it.

    Attributes:
        route: its name, and the events that it wants.
        handle: the handler.
        timeout: of one run, in seconds.
        concurrency: maximum concurrent runs in this process.
        rate: maximum starts per second, over all processes of a store; None for no limit.
        retry: its retry policy.
        close: closes its connections, at shutdown.
        check: tries the service that it depends on; see `Factory`.
        hidden: values of its settings from the environment and from files.
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
        """The text of the handler's error, without secrets of its settings."""
        return mask(text, self.hidden)


def mask(text: str, hidden: Iterable[str]) -> str:
    """A text with each hidden value replaced by an ellipsis."""
    # Longest first: one value may contain another. A value of up to three characters is part of
    # many words, and not a secret.
    for each in sorted(hidden, key=len, reverse=True):
        text = text.replace(each, "…") if len(each) > 3 else text
    return text
