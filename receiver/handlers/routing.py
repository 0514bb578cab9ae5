"""Which handlers an event goes to: pure, from the signed body's type and model alone."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from receiver.event import PARKED, Event


@dataclass(frozen=True, slots=True)
class Route:
    """Which events a handler wants.

    Attributes:
        name: the handler's name.
        on: globs of event types; a parked event matches only the plain word `parked`.
        models: globs of model ids; an event without a model matches only `*`.
        sources: globs of source names.
        after: names of handlers that must be done or dead first, where they got the event too.
    """

    name: str
    on: tuple[str, ...] = ("*",)
    models: tuple[str, ...] = ("*",)
    sources: tuple[str, ...] = ("*",)
    after: tuple[str, ...] = ()

    def wants(self, event: Event) -> bool:
        """Whether the event goes to this handler."""
        if event.type == PARKED and PARKED not in self.on:
            return False
        return (
            _any(event.type, self.on)
            and _any(event.model or "", self.models)
            and _any(event.source, self.sources)
        )


MEMORY = 1024
"""Kinds of events whose handlers are remembered; a sender has far fewer types and models."""


class Router:
    """Finds the handlers of an event, and remembers what it found for each kind of event.

    Args:
        routes: of all handlers.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = tuple(routes)
        self._found: dict[tuple[str, str | None, str], dict[str, tuple[str, ...]]] = {}

    def match(self, event: Event) -> dict[str, tuple[str, ...]]:
        """The handlers of an event, each with those of the same event that it waits for."""
        kind = (event.type, event.model, event.source)
        plan = self._found.get(kind)
        if plan is None:
            if len(self._found) >= MEMORY:
                self._found.clear()
            plan = self._found[kind] = match(event, self._routes)
        return plan


def match(event: Event, routes: Iterable[Route]) -> dict[str, tuple[str, ...]]:
    """The handlers of an event, each with those of the same event that it waits for."""
    wanted = {route.name: route.after for route in routes if route.wants(event)}
    return {
        name: tuple(other for other in after if other in wanted) if after else after
        for name, after in wanted.items()
    }


def _any(text: str, globs: tuple[str, ...]) -> bool:
    return any(glob == "*" or fnmatchcase(text, glob) for glob in globs)
