"""Routing of events to handlers, by type, model and source. Pure: no I/O, and no unsigned data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from receiver.event import PARKED, Event


@dataclass(frozen=True, slots=True)
class Route:
    """The events that a handler wants, and the handlers that it runs after.

    Attributes:
        name: the handler's name.
        on: globs of event types; `parked` must be named, no glob matches it.
        models: globs of model ids; an event without a model matches only `*`.
        sources: globs of source names.
        after: names of handlers that must be done or dead first, if they get the event too.
    """

    name: str
    on: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    sources: tuple[str, ...] = ("*",)
    after: tuple[str, ...] = ()

    def wants(self, event: Event) -> bool:
        """True if the event goes to this handler."""
        if event.type == PARKED and PARKED not in self.on:
            return False
        return (
            _any(event.type, self.on)
            and _any(event.model or "", self.models)
            and _any(event.source, self.sources)
        )


MAX_CACHED_PLANS = 1024
"""Of a router; a sender has far fewer combinations of type, model and source."""


class Router:
    """Finds the handlers of an event; caches them by type, model and source.

    Args:
        routes: of all handlers.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._found: dict[tuple[str, str | None, str], dict[str, tuple[str, ...]]] = {}

    def match(self, event: Event) -> dict[str, tuple[str, ...]]:
        """The handlers of an event, each with those of them that must end before it."""
        kind = (event.type, event.model, event.source)
        plan = self._found.get(kind)
        if plan is None:
            if len(self._found) >= MAX_CACHED_PLANS:
                self._found.clear()
            plan = self._found[kind] = match(event, self._routes)
        return plan


def match(event: Event, routes: Iterable[Route]) -> dict[str, tuple[str, ...]]:
    """The handlers of an event, each with those of them that must end before it."""
    wanted = {route.name: route.after for route in routes if route.wants(event)}
    return {
        name: tuple(other for other in after if other in wanted) if after else after
        for name, after in wanted.items()
    }


def _any(text: str, globs: tuple[str, ...]) -> bool:
    return any(glob == "*" or fnmatchcase(text, glob) for glob in globs)
