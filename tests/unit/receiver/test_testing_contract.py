"""The contract for handlers finds what it is there to find: each check can fail."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import pytest
import structlog
from pydantic import BaseModel, ConfigDict, Field

from receiver.errors import GiveUp, Retry, SettingsError
from receiver.event import Event
from receiver.handlers.base import Context, Handler
from receiver.handlers.settings import read
from receiver.testing import HandlerContract, hostile_events

TOKEN = "t0ken-of-the-tests"
CHECKS = [name for name in vars(HandlerContract) if name.startswith("test_")]


class Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    to: str
    token: str = Field(repr=False)


class Good:
    """A handler that keeps everything."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seen: set[str] = set()

    async def __call__(self, event: Event, context: Context) -> Any:
        if event.prediction is None:
            raise GiveUp("no prediction")
        await asyncio.sleep(0)
        return {"to": self.settings.to}

    async def close(self) -> None:
        """Nothing to let go of."""

    async def check(self) -> str:
        return f"{self.settings.to} is there"


def create(name: str, settings: Mapping[str, Any]) -> Good:
    return Good(read(Settings, name, settings))


class TestGood(HandlerContract):
    """All of it passes, as a test class of its own."""

    factory = staticmethod(create)
    settings = {"to": "x", "token": TOKEN}
    secrets = ("token",)


def create_function(name: str, settings: Mapping[str, Any]) -> Handler:
    read(Settings, name, settings)

    async def run(event: Event, context: Context) -> None: ...

    return run


class TestFunction(HandlerContract):
    """So does a handler that is a function, without `close` and `check`."""

    factory = staticmethod(create_function)
    settings = {"to": "x", "token": TOKEN}


Runs = Callable[[Good, Event, Context], Awaitable[Any]]


def running(run: Runs) -> Callable[..., Handler]:
    """A factory of handlers that run so."""

    class Bad(Good):
        async def __call__(self, event: Event, context: Context) -> Any:
            return await run(self, event, context)

    return lambda name, settings: Bad(read(Settings, name, settings))


async def assumes_a_prediction(handler: Good, event: Event, context: Context) -> Any:
    return event.prediction.outputs[0]  # type: ignore[union-attr]


async def ends_the_process(handler: Good, event: Event, context: Context) -> Any:
    sys.exit(1)


async def hangs(handler: Good, event: Event, context: Context) -> Any:
    await asyncio.Event().wait()


async def returns_an_object(handler: Good, event: Event, context: Context) -> Any:
    return {"event": event}


async def returns_too_much(handler: Good, event: Event, context: Context) -> Any:
    return "x" * 70_000


async def logs_the_prompt(handler: Good, event: Event, context: Context) -> Any:
    logging.getLogger("mine").debug("made %s", event.payload)


async def logs_the_context(handler: Good, event: Event, context: Context) -> Any:
    structlog.get_logger().info("made", context=event.context)


async def tells_the_token(handler: Good, event: Event, context: Context) -> Any:
    raise Retry(f"401 for {handler.settings.token}")


async def runs_once(handler: Good, event: Event, context: Context) -> Any:
    if context.key in handler.seen:
        raise ValueError("seen before")
    handler.seen.add(context.key)


async def runs_alone(handler: Good, event: Event, context: Context) -> Any:
    if handler.seen:
        raise ValueError("busy")
    handler.seen.add(context.key)
    await asyncio.sleep(0.001)
    handler.seen.clear()


async def goes_on(handler: Good, event: Event, context: Context) -> Any:
    for _ in range(30):
        try:
            await asyncio.sleep(0.02)
        except asyncio.CancelledError:
            continue


async def keeps_its_loop(handler: Good, event: Event, context: Context) -> Any:
    loop = asyncio.get_running_loop()
    if getattr(handler, "loop", loop) is not loop:
        raise ConnectionError("another loop's connection")
    handler.loop = loop  # type: ignore[attr-defined]


async def leaves_a_task(handler: Good, event: Event, context: Context) -> Any:
    handler.task = asyncio.create_task(asyncio.sleep(3600))  # type: ignore[attr-defined]


class ClosesOnce(Good):
    async def close(self) -> None:
        del self.settings


class ShowsItself(Good):
    def __repr__(self) -> str:
        return f"ShowsItself({vars(self.settings)})"


class SaysNothing(Good):
    async def check(self) -> str:
        return " "


class SaysTooMuch(Good):
    async def check(self) -> str:
        return f"signed in as {self.settings.token}"


class StumblesInCheck(Good):
    async def check(self) -> str:
        raise KeyError("team")


class Open(BaseModel):
    """Settings that take what nobody knows."""

    to: str
    token: str = Field(repr=False)


class Shown(BaseModel):
    model_config = ConfigDict(extra="forbid")
    to: str
    token: str


class Loose(BaseModel):
    model_config = ConfigDict(extra="forbid")
    to: Any = None
    token: str = Field(repr=False)


def modelled(model: type[Any]) -> Callable[..., Handler]:
    return lambda name, settings: Good(read(model, name, settings))


def unread(name: str, settings: Mapping[str, Any]) -> Handler:
    if unknown := settings.keys() - {"to", "token"}:
        raise SettingsError([f"{each}: unknown" for each in unknown])
    return Good(Settings(to=settings["to"].strip(), token=settings["token"]))


def of(kind: type[Good]) -> Callable[..., Handler]:
    return lambda name, settings: kind(read(Settings, name, settings))


BAD: dict[str, tuple[Callable[..., Handler], str, str]] = {
    "takes unknown settings": (
        modelled(Open),
        "unknown_setting",
        "no_such_setting = 1 is accepted",
    ),
    "tells faults without their key": (unread, "unknown_setting", "its error does not name it"),
    "takes anything": (modelled(Loose), "wrong_type", "to = .* is accepted"),
    "crashes": (unread, "missing_setting", "without to: .*KeyError: 'to'"),
    "shows a wrong token": (modelled(Shown), "never_shown", r"token is shown: .*\['s3cret'\]"),
    "shows its token": (of(ShowsItself), "never_shown", "a secret is shown: ShowsItself"),
    "assumes a prediction": (
        running(assumes_a_prediction),
        "strange_event",
        "(?s)parked: no UTF-8: AttributeError.*no outputs: IndexError",
    ),
    "ends the process": (running(ends_the_process), "strange_event", "Exited: called sys.exit"),
    "hangs": (running(hangs), "strange_event", r"TimedOut: timed out after 0\.01 s"),
    "returns an object": (running(returns_an_object), "it_returns", "dict is not JSON"),
    "returns too much": (running(returns_too_much), "it_returns", "str is not JSON of at most"),
    "logs the prompt": (running(logs_the_prompt), "errors_and_logs", "private: made .*prompt"),
    "logs the context": (running(logs_the_context), "errors_and_logs", "private: .*context-"),
    "tells the token": (running(tells_the_token), "errors_and_logs", f"401 for {TOKEN}"),
    "runs once": (
        running(runs_once),
        "second_run",
        "'done', another with 'ValueError: seen before'",
    ),
    "runs alone": (running(runs_alone), "at_once", "another with 'ValueError: busy'"),
    "goes on": (
        running(goes_on),
        "cancelled",
        "cancelled after 1 turns of the event loop, it goes on",
    ),
    "closes once": (of(ClosesOnce), "closes_twice", "settings"),
    "keeps its loop": (running(keeps_its_loop), "closes_twice", "ConnectionError: another loop"),
    "leaves a task": (running(leaves_a_task), "closes_twice", r"after close\(\) a task goes on"),
    "says nothing": (of(SaysNothing), "check_says", "the sentence is empty"),
    "says too much": (of(SaysTooMuch), "check_says", f"a secret is shown: signed in as {TOKEN}"),
    "stumbles": (of(StumblesInCheck), "check_says", "check: KeyError: 'team'"),
}


@pytest.mark.parametrize(("factory", "check", "told"), BAD.values(), ids=BAD)
def test_a_bad_handler_fails(factory: Callable[..., Handler], check: str, told: str) -> None:
    """Its check, with what is wrong."""

    class Tested(TestGood):
        # Only who never ends waits as long.
        patience = 0.01 if check in {"cancelled", "strange_event"} else 10.0

    tested = Tested()
    tested.factory = factory  # type: ignore[assignment]
    [name] = [name for name in CHECKS if check in name]
    with pytest.raises((AssertionError, AttributeError), match=told):
        getattr(tested, name)()


def test_each_check_has_somebody_who_fails_it() -> None:
    """A check that nobody can fail checks nothing."""
    failed = {name for name in CHECKS for _, check, _ in BAD.values() if check in name}
    assert failed == set(CHECKS)


def test_hostile_events_are_events() -> None:
    """Each is told apart by its name and its body; they are made anew for everybody."""
    events = hostile_events()
    assert len({(each.body, str(each.context), each.occurred_at) for each in events.values()}) > 70
    assert {each.type for each in events.values()} >= {"parked", "push", "prediction.warming_up"}
    assert events.keys() == hostile_events().keys()
