"""The decorator that makes an async function a handler."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar, cast

from pydantic import ValidationError

from receiver.errors import SettingsError
from receiver.event import Event
from receiver.handlers.base import Context, Handler, Installed
from receiver.handlers.retry import Backoff
from receiver.handlers.settings import NAME, NAME_EXPECTED, Rules, explain

Function = TypeVar("Function", bound=Callable[[Event, Context], Coroutine[Any, Any, Any]])

_MARK = "__wavehook__"


def on(
    *types: str,
    models: str | Sequence[str] = "*",
    sources: str | Sequence[str] = "*",
    after: str | Sequence[str] = (),
    name: str | None = None,
    timeout: str | float = 30.0,
    concurrency: int = 16,
    rate: str | float | None = None,
    retry: Backoff | Mapping[str, Any] | None = None,
) -> Callable[[Function], Function]:
    """Mark an async function as a handler; `serve --handlers package.module` finds it.

    Nothing is registered, and the function stays as it is.

    Args:
        types: globs of event types, such as `prediction.completed`; none: every type.
        models: globs of model ids, such as `kwaivgi/*`.
        sources: globs of source names.
        after: handlers that must be done or dead first; their results stand in `context.earlier`.
        name: the handler's name; the function's own unless given.
        timeout: for one run, such as `30s`, or seconds.
        concurrency: runs at once in one process.
        rate: starts in all processes together, such as `1/s` or `30/m`, or a number a second.
        retry: what happens after a failure: `{"attempts": 8, "base": "2s", "cap": "10m"}`.

    Raises:
        TypeError: what is decorated is no async function of an event and a context.
        SettingsError: an argument makes no sense; all faults at once.
    """
    if types and not all(isinstance(type, str) for type in types):
        raise TypeError('@on takes event types: write @on("prediction.completed") or @on()')

    def mark(function: Function) -> Function:
        title = _check(function)
        chosen = title if name is None else name
        faults = (
            [] if NAME.fullmatch(chosen) else [f"@on.name: {chosen!r}, expected {NAME_EXPECTED}"]
        )
        try:
            rules = Rules.model_validate(
                {
                    "on": types or ("*",),
                    "models": models,
                    "sources": sources,
                    "after": after,
                    "timeout": timeout,
                    "concurrency": concurrency,
                    "rate": rate,
                    "retry": asdict(retry) if isinstance(retry, Backoff) else retry or {},
                }
            )
        except ValidationError as error:
            faults += [explain("@on", fault) for fault in error.errors()]
            raise SettingsError([f"{title}: {fault}" for fault in faults]) from None
        if faults:
            raise SettingsError([f"{title}: {fault}" for fault in faults])
        # The port calls by position; a function may name its arguments as it likes.
        setattr(function, _MARK, rules.install(chosen, cast("Handler", function)))
        return function

    return mark


def marked(value: object) -> Installed | None:
    """The handler that a decorated function is; None for anything else."""
    found = vars(value).get(_MARK) if inspect.isfunction(value) else None
    if not isinstance(found, Installed):
        return None
    # `functools.wraps` copies the mark: a decorator above @on is part of the handler.
    return replace(found, handle=cast("Handler", value))


def _check(function: object) -> str:
    """Name a function that can be a handler; say what is wrong with any other thing."""
    title = str(getattr(function, "__qualname__", repr(function)))
    if not inspect.iscoroutinefunction(function) or not inspect.isfunction(function):
        raise TypeError(
            f"{title} is no async function; a handler is written `async def "
            f"{title.rpartition('.')[2]}(event: Event, context: Context)`, and blocking work in "
            "it goes through `asyncio.to_thread`"
        )
    try:
        inspect.signature(function).bind(object(), object())
    except TypeError as error:
        raise TypeError(
            f"{title} cannot be called with an event and a context ({error}); a handler is "
            f"written `async def {function.__name__}(event: Event, context: Context)`"
        ) from None
    return function.__name__
