"""`@on` marks an async function, and nothing else."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import receiver
from receiver import Backoff, Context, Event, on
from receiver.errors import SettingsError
from receiver.event import PARKED
from receiver.handlers.base import Installed
from receiver.handlers.decorator import marked
from receiver.handlers.routing import Route

EVENT = Event("wavespeed:1:completed", "wavespeed", "prediction.completed")
CONTEXT = Context("key", "publish", 1, 0.0)


def installed(value: object) -> Installed:
    found = marked(value)
    assert found is not None
    return found


async def test_a_function_stays_what_it_is() -> None:
    """The decorated function is the same object, and can be called as before."""

    async def publish(event: Event, context: Context) -> str:
        return event.id

    assert on("prediction.completed")(publish) is publish
    assert await publish(EVENT, CONTEXT) == EVENT.id
    assert await installed(publish).handle(EVENT, CONTEXT) == EVENT.id


def test_rules_as_given() -> None:
    """Every argument reaches the dispatcher, durations and rates in seconds."""

    @on(
        "prediction.completed",
        "prediction.failed",
        models=["kwaivgi/*"],
        sources="wavespeed",
        after="keep",
        name="team",
        timeout="2m",
        concurrency=4,
        rate="30/m",
        retry={"attempts": 3, "base": "500ms", "cap": "1h"},
    )
    async def publish(event: Event, context: Context) -> None: ...

    one = installed(publish)
    assert one.route == Route(
        "team",
        ("prediction.completed", "prediction.failed"),
        ("kwaivgi/*",),
        ("wavespeed",),
        ("keep",),
    )
    assert (one.timeout, one.concurrency, one.rate) == (120.0, 4, 0.5)
    assert one.retry == Backoff(3, 0.5, 3600.0)


def test_rules_unless_given() -> None:
    """Without arguments: every event but parked ones, the function's name, the usual limits."""

    @on()
    async def publish(event: Event, context: Context) -> None: ...

    one = installed(publish)
    assert one == Installed(Route("publish"), one.handle)
    assert not one.route.wants(Event("a", "b", PARKED))


def test_a_policy_may_be_a_value() -> None:
    """`retry` takes a Backoff too."""

    @on(retry=Backoff(attempts=2))
    async def publish(event: Event, context: Context) -> None: ...

    assert installed(publish).retry == Backoff(attempts=2)


def refused(mark: Callable[[Any], Any], function: object) -> str:
    with pytest.raises(TypeError) as error:
        mark(function)
    return str(error.value)


def test_a_function_that_is_not_async_is_refused() -> None:
    """The message shows what to write."""

    def publish(event: Event, context: Context) -> None: ...

    text = refused(on(), publish)
    assert "is not an async function; a handler is written `async def publish(event: Event" in text
    assert "asyncio.to_thread" in text


def test_what_is_no_function_is_refused() -> None:
    """Classes, instances and partials cannot carry the mark."""

    class Publish:
        async def __call__(self, event: Event, context: Context) -> None: ...

    async def publish(event: Event, context: Context) -> None: ...

    for value in (Publish, Publish(), functools.partial(publish), None):
        assert "not an async function" in refused(on(), value)


def test_wrong_arguments_are_refused() -> None:
    """A handler takes an event and a context."""

    async def one(event: Event) -> None: ...

    async def three(event: Event, context: Context, more: int) -> None: ...

    async def keyword(event: Event, context: Context, *, more: int) -> None: ...

    for function in (one, three, keyword):
        assert "cannot be called with an event and a context" in refused(on(), function)


def test_optional_arguments_are_fine() -> None:
    """What has a default does not stand in the way."""

    async def publish(event: Event, context: Context, more: int = 0) -> None: ...

    assert marked(on()(publish)) is not None


def test_the_decorator_needs_its_parentheses() -> None:
    """A bare `@on` says what to write."""

    async def publish(event: Event, context: Context) -> None: ...

    with pytest.raises(TypeError, match=r'write @on\("prediction.completed"\) or @on\(\)'):
        on(publish)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ({"timeout": "soon"}, "publish: @on.timeout: 'soon', expected a duration such as"),
        ({"timeout": 0}, "publish: @on.timeout: 0, expected a number greater than 0"),
        ({"rate": "1/x"}, "publish: @on.rate: '1/x', expected a rate such as 1/s"),
        ({"concurrency": 0}, "publish: @on.concurrency: 0, expected a number of at least 1"),
        ({"models": []}, "publish: @on.models: [], expected at least one"),
        ({"name": "a b"}, "publish: @on.name: 'a b', expected a name of 1 to 64 letters"),
        ({"name": ""}, "publish: @on.name: '', expected a name of 1 to 64 letters"),
        ({"retry": {"times": 3}}, "publish: @on.retry.times: unknown key"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], fault: str) -> None:
    """At decoration, with the argument, its value and what was expected."""

    async def publish(event: Event, context: Context) -> None: ...

    with pytest.raises(SettingsError) as error:
        on(**arguments)(publish)
    assert str(error.value).startswith(fault)


def test_all_faults_come_at_once() -> None:
    """Two wrong arguments and a wrong name are three faults."""

    async def publish(event: Event, context: Context) -> None: ...

    with pytest.raises(SettingsError) as error:
        on(name="a b", timeout="soon", rate=-1)(publish)
    assert len(error.value.faults) == 3


async def test_a_decorator_above_is_part_of_the_handler() -> None:
    """A wrapper that copies the function's attributes is what runs."""
    calls: list[str] = []

    def counted(
        function: Callable[[Event, Context], Awaitable[None]],
    ) -> Callable[[Event, Context], Awaitable[None]]:
        @functools.wraps(function)
        async def wrapper(event: Event, context: Context) -> None:
            calls.append("wrapper")
            await function(event, context)

        return wrapper

    @counted
    @on()
    async def publish(event: Event, context: Context) -> None:
        calls.append("inner")

    await installed(publish).handle(EVENT, CONTEXT)
    assert calls == ["wrapper", "inner"]


def test_what_is_not_decorated_is_not_marked() -> None:
    """Functions, and things that only look like it."""

    async def publish(event: Event, context: Context) -> None: ...

    publish.__dict__["__wavehook__"] = "something else"
    assert marked(publish) is None
    assert marked(object()) is None


def test_the_package_names_what_handlers_need() -> None:
    """Every public name is there, in order, and no other."""
    assert receiver.__all__ == sorted(receiver.__all__, key=lambda name: (not name.isupper(), name))
    assert all(hasattr(receiver, name) for name in receiver.__all__)
    with pytest.raises(AttributeError, match="module 'receiver' has no attribute 'of'"):
        _ = receiver.of  # type: ignore[attr-defined]
