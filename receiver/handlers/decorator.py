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
from receiver.handlers.settings import NAME, NAME_EXPECTED, DispatchRules, explain

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

    Nothing is registered, and the function is not changed.

    Args:
        types: globs of event types, such as `prediction.completed`; default every type.
        models: globs of model ids, such as `kwaivgi/*`.
        sources: globs of source names.
        after: handlers that must be done or dead first; `context.earlier` has their results.
        name: the handler's name; default the function's.
        timeout: of one run, such as `30s`, or seconds.
        concurrency: maximum concurrent runs in one process.
        rate: maximum starts of all processes, such as `1/s` or `30/m`, or a number per second.
        retry: the retry policy: `{"attempts": 8, "base": "2s", "cap": "10m"}`.

    Raises:
        TypeError: the decorated object is not an async function of an event and a context.
        SettingsError: with all faults of the arguments.
    """
    if types and not all(isinstance(type, str) for type in types):
        raise TypeError('@on takes event types: write @on("prediction.completed") or @on()')

    def mark(function: Function) -> Function:
        title = _checked_name(function)
        chosen = title if name is None else name
        faults = (
            [] if NAME.fullmatch(chosen) else [f"@on.name: {chosen!r}, expected {NAME_EXPECTED}"]
        )
        try:
            rules = DispatchRules.model_validate(
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
    """The handler of a decorated function; None for anything else."""
    found = vars(value).get(_MARK) if inspect.isfunction(value) else None
    if not isinstance(found, Installed):
        return None
    # `functools.wraps` copies the mark: a decorator above @on is part of the handler.
    return replace(found, handle=cast("Handler", value))


def _checked_name(function: object) -> str:
    """The function's name, if it can be a handler."""
    title = str(getattr(function, "__qualname__", repr(function)))
    if not inspect.iscoroutinefunction(function) or not inspect.isfunction(function):
        raise TypeError(
            f"{title} is not an async function; a handler is written `async def "
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
