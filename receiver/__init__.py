"""Wavehook's receiver: webhooks are verified, stored once, and handled until they are done.

The public names for authors of handlers are here; importing the package does no work.

    from receiver import Context, Event, GiveUp, Retry, on

    @on("prediction.completed", models=["kwaivgi/*"])
    async def publish(event: Event, context: Context) -> None: ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = [
    "JSON",
    "Backoff",
    "Context",
    "Dispatch",
    "DispatchState",
    "Event",
    "GiveUp",
    "Handler",
    "Prediction",
    "Retry",
    "Status",
    "on",
]

if TYPE_CHECKING:
    from receiver.errors import GiveUp, Retry
    from receiver.event import Dispatch, DispatchState, Event
    from receiver.handlers.base import Context, Handler
    from receiver.handlers.decorator import on
    from receiver.handlers.retry import Backoff
    from submitter.prediction import JSON, Prediction, Status
else:
    _HOMES = {
        "JSON": "submitter.prediction",
        "Backoff": "receiver.handlers.retry",
        "Context": "receiver.handlers.base",
        "Dispatch": "receiver.event",
        "DispatchState": "receiver.event",
        "Event": "receiver.event",
        "GiveUp": "receiver.errors",
        "Handler": "receiver.handlers.base",
        "Prediction": "submitter.prediction",
        "Retry": "receiver.errors",
        "Status": "submitter.prediction",
        "on": "receiver.handlers.decorator",
    }

    def __getattr__(name: str) -> object:
        """Import a public name on its first use."""
        home = _HOMES.get(name)
        if home is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(home), name)
        return value
