"""What a type checker must make of the public API; read by mypy, never run.

Every `type: ignore` here is a mistake that must be found: mypy runs with unused ignores as errors.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any, assert_type

import receiver
from receiver import (
    JSON,
    Backoff,
    Context,
    Dispatch,
    DispatchState,
    Event,
    GiveUp,
    Handler,
    Prediction,
    Retry,
    Status,
    on,
)


@on("prediction.completed", models=["kwaivgi/*"])
async def publish(event: Event, context: Context) -> str:
    assert_type(event.id, str)
    assert_type(event.type, str)
    assert_type(event.subject, str | None)
    assert_type(event.model, str | None)
    assert_type(event.context, JSON)
    assert_type(event.body, bytes)
    assert_type(event.prediction, Prediction | None)
    if event.prediction is not None:
        assert_type(event.prediction.outputs, tuple[str, ...])
        assert_type(event.prediction.status, str)
        assert_type(event.prediction.status == Status.FAILED, bool)
        assert_type(event.prediction.raw, Mapping[str, JSON])
    assert_type(context.key, str)
    assert_type(context.attempt, int)
    assert_type(context.deadline, float)
    assert_type(context.earlier, Mapping[str, Dispatch])
    assert_type(context.earlier["keep"].state, DispatchState)
    assert_type(context.earlier["keep"].result, JSON)
    if event.model is None:
        raise GiveUp("no model")
    if context.attempt == 1:
        raise Retry("not yet", after=30.0, pause=True)
    return event.id


# The decorator gives back the function that it was given, with its own types and names.
same: Callable[[Event, Context], Coroutine[Any, Any, str]] = publish


async def call(one: Event, other: Context) -> None:
    assert_type(await publish(event=one, context=other), str)
    await publish(one)  # type: ignore[call-arg]


@on(
    sources="wavespeed",
    after=("publish",),
    name="team",
    timeout="30s",
    concurrency=4,
    rate="1/s",
    retry={"attempts": 8, "base": "2s", "cap": "10m"},
)
async def tell(occasion: Event, circumstances: Context) -> None: ...


@on(timeout=30, rate=0.5, retry=Backoff(attempts=3))
async def measure(event: Event, context: Context) -> dict[str, int]:
    return {"size": len(event.body)}


class Count:
    """A handler with a state of its own."""

    async def __call__(self, event: Event, context: Context) -> int:
        return context.attempt


handler: Handler = Count()


@on()  # type: ignore[type-var]
def blocking(event: Event, context: Context) -> None: ...


@on()  # type: ignore[type-var]
async def alone(event: Event) -> None: ...


@on()  # type: ignore[type-var]
async def swapped(context: Context, event: Event) -> None: ...


on("prediction.completed", models=5)  # type: ignore[arg-type]
on("prediction.completed", model="kwaivgi/*")  # type: ignore[call-arg]
on(publish)  # type: ignore[arg-type]
Retry("later", after="30s")  # type: ignore[arg-type]
receiver.nonsense  # type: ignore[attr-defined] # noqa: B018


def read_only(event: Event, context: Context) -> None:
    event.id = "other"  # type: ignore[misc]
    context.key = "other"  # type: ignore[misc]
