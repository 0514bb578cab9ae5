"""`run_handler`: a handler under the real dispatcher, without the waits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from receiver import Backoff, Context, Dispatch, Event, GiveUp, Retry, on
from receiver.handlers.loading import load_section
from receiver.testing import event, run_handler

NOW = 4_000_000_000.0


class Scripted:
    """A handler that does one step a call: raises an exception, or returns a value."""

    def __init__(self, *steps: object) -> None:
        self.steps = list(steps)
        self.seen: list[Context] = []
        self.closed = 0

    async def __call__(self, event: Event, context: Context) -> object:
        self.seen.append(context)
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def close(self) -> None:
        self.closed += 1


async def test_a_handler_that_works_at_once() -> None:
    """Done, its result, one attempt, no wait, and closed."""
    handler = Scripted({"url": "https://x"})
    run = await run_handler(handler, event(at=NOW))
    assert (run.state, run.result, run.error, run.waited) == (
        "done",
        {"url": "https://x"},
        None,
        (),
    )
    (attempt,) = run.attempts
    assert (attempt.number, attempt.outcome, attempt.started_at) == (1, "done", NOW)
    assert handler.closed == 1


async def test_the_waits_of_the_policy_take_no_time() -> None:
    """F23: they are doubled each time; the attempts carry the errors, and one key."""
    handler = Scripted(ValueError("a"), Retry("b", after=3600), OSError("c"), "fine")
    started = time.monotonic()
    run = await run_handler(handler, event(at=NOW), retry=Backoff(base=10, cap=1000))
    assert time.monotonic() - started < 3600
    assert run.waited == (10, 3620, 40)
    assert [each.outcome for each in run.attempts] == ["retry", "retry", "retry", "done"]
    assert [each.error for each in run.attempts] == ["ValueError: a", "b", "OSError: c", None]
    assert [each.number for each in run.attempts] == [1, 2, 3, 4]
    assert run.attempts[3].started_at == pytest.approx(NOW + 3670, abs=5)
    assert {each.key for each in handler.seen} == {f"{event().id}/handler"}
    assert [each.attempt for each in handler.seen] == [1, 2, 3, 4]


async def test_a_pause_of_the_handler_is_a_wait() -> None:
    """F27: what a downstream asked for."""
    run = await run_handler(Scripted(Retry("429", after=60, pause=True), None))
    assert (run.state, run.waited) == ("done", (62,))


async def test_a_handler_that_gives_up_or_fails_for_ever() -> None:
    """Dead, with the last error."""
    run = await run_handler(Scripted(GiveUp("no such channel")))
    assert (run.state, run.error, len(run.attempts)) == ("dead", "no such channel", 1)
    run = await run_handler(Scripted(*map(OSError, "abc")), retry=Backoff(attempts=3))
    assert (run.state, run.error, len(run.waited)) == ("dead", "OSError: c", 2)


async def test_jitter_is_an_argument() -> None:
    """Unless given, every wait is the longest."""
    run = await run_handler(Scripted(OSError(), None), random=lambda: 0.25)
    assert run.waited == (0.5,)


async def test_a_time_limit_is_of_real_time() -> None:
    """F24: one that hangs is cancelled."""

    async def hang(event: Event, context: Context) -> None:
        await asyncio.Event().wait()

    run = await run_handler(hang, timeout=0.01, retry=Backoff(attempts=2))
    assert (run.state, run.error) == ("dead", "TimedOut: timed out after 0.01 s")
    assert len(run.attempts) == 2


async def test_what_earlier_handlers_came_to() -> None:
    """Results and errors arrive as they would; the handler waits for both."""
    seen: list[Mapping[str, Dispatch]] = []

    @on("prediction.*", after="keep", name="tell", rate="1/h", retry={"attempts": 2, "base": 5})
    async def tell(event: Event, context: Context) -> str:
        seen.append(context.earlier)
        if context.attempt == 1:
            raise Retry
        return context.key

    made = event("failed")
    run = await run_handler(tell, made, earlier={"keep": {"files": []}, "shop": GiveUp("shut")})
    assert (run.state, run.waited, run.result) == ("done", (5,), f"{made.id}/tell")
    assert {name: (each.state, each.result, each.error) for name, each in seen[1].items()} == {
        "keep": ("done", {"files": []}, None),
        "shop": ("dead", None, "shut"),
    }
    await run_handler(tell, made)
    assert seen[-1] == {}


async def test_an_event_that_a_function_does_not_want() -> None:
    """It is not run; one that is not decorated gets everything, also what is parked."""

    @on("prediction.completed", models="kwaivgi/*")
    async def publish(event: Event, context: Context) -> None:
        raise AssertionError

    assert (await run_handler(publish, event("failed"))).state is None
    assert (await run_handler(publish, event(model="other/x"), earlier={"a": 1})).attempts == ()
    assert (await run_handler(Scripted(None), event(body=b"\xff"))).state == "done"


async def test_a_handler_may_bring_its_rules() -> None:
    """They hold as they do where a section names it."""

    class Patient(Scripted):
        rules = {"retry": {"attempts": 2, "base": "1h", "cap": "1h"}}

    run = await run_handler(Patient(OSError(), OSError()))
    assert (run.state, run.waited) == ("dead", (3600,))


async def test_an_installed_handler_is_run_under_its_rules(tmp_path: object) -> None:
    """As it is made from a section of the settings."""
    section = {"use": "log", "to": f"{tmp_path}/log", "on": "prediction.failed"}
    installed = load_section("keep", section)
    assert (await run_handler(installed, event())).state is None
    assert (await run_handler(installed, event("failed"))).state == "done"
