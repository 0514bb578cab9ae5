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


def match(event: Event, routes: Iterable[Route]) -> dict[str, tuple[str, ...]]:
    """The handlers of an event, each with those of the same event that it waits for."""
    wanted = {route.name: route.after for route in routes if route.wants(event)}
    return {
        name: tuple(other for other in after if other in wanted) if after else after
        for name, after in wanted.items()
    }


def _any(text: str, globs: tuple[str, ...]) -> bool:
    return any(glob == "*" or fnmatchcase(text, glob) for glob in globs)
