"""The handlers of `wavehook check`: would each of them work?"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from receiver.cli.finding import Finding
from receiver.errors import SettingsError

if TYPE_CHECKING:
    from receiver.config import Settings
    from receiver.handlers.base import Installed

HANDLER_TIMEOUT_S = 10.0
"""Seconds for one handler to try what it stands on."""


def handlers(settings: Settings) -> Iterator[Finding]:
    """Make the handlers as a start does, and let all at once try what they stand on."""
    from receiver.handlers.loading import install

    try:
        installed = install(settings.handlers, settings.modules)
    except SettingsError as error:
        for fault in error.faults:
            yield Finding("handlers", fault, "correct the section, or the module")
        return
    if not installed:
        yield Finding("handlers", "none: events are stored, and nothing acts on them")
    yield from asyncio.run(_look_at_all(installed))


async def _look_at_all(installed: list[Installed]) -> list[Finding]:
    named = sorted(installed, key=lambda one: one.name)
    return list(await asyncio.gather(*map(_check_handler, named)))


async def _check_handler(one: Installed) -> Finding:
    from receiver.dispatch import CLOSE_LIMIT

    found, wrong = "nothing to try", None
    if one.check is not None:
        found, wrong = await _outcome(one.check, HANDLER_TIMEOUT_S)
    if one.close is not None:
        _, unclosed = await _outcome(one.close, CLOSE_LIMIT)
        wrong = wrong or (f"it does not close ({unclosed})" if unclosed else None)
    text = one.masked(f"{one.name}: {wrong or found}")
    todo = f"correct [handlers.{one.name}], or see to what it stands on" if wrong else None
    return Finding("handler", text, todo)


async def _outcome(call: Callable[[], Awaitable[object]], limit: float) -> tuple[str, str | None]:
    """What a handler's own code says within `limit` seconds, and what is wrong."""
    from receiver.retry import describe

    within = asyncio.timeout(limit)
    try:
        async with within:
            said = await call()
    except Exception as error:  # noqa: BLE001 - a stranger's handler may raise anything
        return "", f"no answer within {limit:g} s" if within.expired() else describe(error)
    return str(said), None
