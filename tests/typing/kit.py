"""What a type checker must make of the kit for handlers; read by mypy, never run.

Every `type: ignore` here is a mistake that must be found: mypy runs with unused ignores as errors.
"""

from __future__ import annotations

from typing import assert_type

from receiver import JSON, Backoff, Context, DispatchState, Event, GiveUp, on
from receiver.event import Attempt, Delivery
from receiver.handlers.log import create
from receiver.testing import (
    HandlerContract,
    Run,
    context,
    deliveries,
    event,
    hostile_events,
    run_handler,
)


@on("prediction.completed", after="keep")
async def publish(event: Event, context: Context) -> str:
    return context.key


async def run() -> None:
    made = event("failed", outputs=[], context={"user": 7}, id="abc", code=1200)
    assert_type(made, Event)
    assert_type(context(made, attempt=2, earlier={"keep": GiveUp("full")}), Context)
    done = await run_handler(publish, made, earlier={"keep": {"files": []}}, retry=Backoff(3))
    assert_type(done, Run)
    assert_type(done.state, DispatchState | None)
    assert_type(done.state == "done", bool)
    assert_type(done.attempts, tuple[Attempt, ...])
    assert_type(done.attempts[0].outcome, str | None)
    assert_type(done.waited, tuple[float, ...])
    assert_type(done.result, JSON)
    await run_handler(create("log", {}), timeout=0.5)
    await run_handler(blocking, made)  # type: ignore[arg-type]
    await run_handler(publish, made, timeout="5s")  # type: ignore[arg-type]
    await run_handler(publish, made, earlier={"keep": object()})  # type: ignore[dict-item]
    event(code=object())  # type: ignore[arg-type]
    context()  # type: ignore[call-arg]
    done.state = None  # type: ignore[misc]


def blocking(event: Event, context: Context) -> None: ...


def sign(secret: str) -> Delivery:
    assert_type(deliveries.standard(b"{}", secret), Delivery)
    assert_type(deliveries.header_hmac(b"{}", secret, header="X-Sign"), Delivery)
    deliveries.wavespeed("{}", secret)  # type: ignore[arg-type]
    return deliveries.wavespeed(event().body, secret, at=0.0)


class TestLog(HandlerContract):
    factory = staticmethod(create)
    settings = {"to": "-", "outputs": True}
    secrets = ("to",)


class Wrong(HandlerContract):
    factory = staticmethod(blocking)  # type: ignore[assignment]
    secrets = 5  # type: ignore[assignment]


assert_type(hostile_events(), dict[str, Event])
