"""Lifespan once, never, or at every request."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from starlette.applications import Starlette

from receiver.dispatch.dispatcher import Dispatcher
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import DispatchState, Event
from receiver.handlers.base import Context, Installed
from receiver.handlers.routing import Route
from receiver.telemetry import TelemetryEvent
from receiver.web.lifecycle import Lifecycle
from submitter.errors import LedgerUnavailable
from submitter.ledger.base import Ledger
from tests.support.asgi import BODY, EVENT_ID, NOW, Inbox, Log, post, running

Build = Callable[..., Starlette]


class Noted(Dispatcher):
    """Tells what was asked of it."""

    calls: list[str]

    async def start(self) -> None:
        self.calls.append("start")
        await super().start()

    async def stop(self, grace: float) -> None:
        self.calls.append(f"stop {grace}")
        await super().stop(grace)


@pytest.fixture
def handled() -> asyncio.Event:
    return asyncio.Event()


@pytest.fixture
def dispatcher(inbox: Inbox, handled: asyncio.Event) -> Noted:
    """A dispatcher with one handler, that notes its calls among the store's."""

    async def keep(event: Event, context: Context) -> None:
        handled.set()

    dispatcher = Noted(inbox, [Installed(Route("keep"), keep)], owner="web", clock=lambda: NOW)
    dispatcher.calls = inbox.calls
    return dispatcher


async def test_lifespan_opens_and_closes_everything_in_order(
    build: Build, inbox: Inbox, dispatcher: Noted
) -> None:
    """F40: the store outlives the dispatcher."""
    async with running(build(dispatcher=dispatcher, grace=3.0)) as sent:
        assert sent == [{"type": "lifespan.startup.complete"}]
        assert inbox.calls == ["open", "start"]

    assert sent[1:] == [{"type": "lifespan.shutdown.complete"}]
    assert inbox.calls == ["open", "start", "stop 3.0", "close"]


async def test_background_dispatch_handles_what_comes_in(
    build: Build, inbox: Inbox, dispatcher: Noted, handled: asyncio.Event
) -> None:
    """A delivery is handled after its reply, without anybody asking."""
    app = build(dispatcher=dispatcher)
    async with running(app):
        await post(app)
        await asyncio.wait_for(handled.wait(), 5)

    assert "add" in inbox.calls


async def test_lifespan_never(build: Build, inbox: Inbox, dispatcher: Noted) -> None:
    """F41: the first delivery opens the store and starts the dispatcher, many at once only once."""
    app = build(dispatcher=dispatcher)
    bodies = [BODY.replace(b"task-1", b"task-%d" % number) for number in range(20)]

    answers = await asyncio.gather(*(post(app, body) for body in bodies))

    assert {answer.status for answer in answers} == {202}
    assert inbox.calls.count("open") == 1
    assert inbox.calls.count("start") == 1
    await dispatcher.stop(1)


async def test_lifespan_at_every_request(build: Build, inbox: Inbox) -> None:
    """F41: opened and closed around each request, nothing is lost and nothing is stored twice."""
    app = build()
    statuses = []

    for _ in range(3):
        async with running(app):
            statuses.append((await post(app)).status)

    assert statuses == [202, 200, 200]
    assert [call for call in inbox.calls if call != "add"] == ["open", "close"] * 3


async def test_only_background_dispatch_starts_the_dispatcher(
    build: Build, inbox: Inbox, dispatcher: Noted
) -> None:
    """F41: with inline and external dispatch nothing runs beside the requests."""
    for dispatch in ("inline", "external"):
        async with running(build(dispatcher=dispatcher, dispatch=dispatch, grace=3.0)):
            pass

    assert inbox.calls == ["open", "stop 3.0", "close"] * 2


@pytest.mark.parametrize("dispatch", ["background", "inline", "external"])
async def test_handlers_are_closed_at_the_stop(build: Build, inbox: Inbox, dispatch: str) -> None:
    """F45: in every mode, once, after their last run and before the store."""

    async def keep(event: Event, context: Context) -> None:
        inbox.calls.append("handled")

    async def close() -> None:
        inbox.calls.append("closed")

    handler = Installed(Route("keep"), keep, close=close)
    app = build(
        dispatcher=Dispatcher(inbox, [handler], owner="web", clock=lambda: NOW), dispatch=dispatch
    )
    async with running(app):
        await post(app)
        if dispatch == "background":
            async with asyncio.timeout(5):
                while "handled" not in inbox.calls:
                    await asyncio.sleep(0.001)

    handled = [] if dispatch == "external" else ["handled"]
    assert inbox.calls == ["open", "add", *handled, "closed", "close"]


async def test_inline_dispatch_with_lifespan_at_every_request(build: Build, inbox: Inbox) -> None:
    """F41: handlers run in each of them, after a stop as before."""
    handled = []

    async def keep(event: Event, context: Context) -> None:
        handled.append(event.subject)

    dispatcher = Dispatcher(inbox, [Installed(Route("keep"), keep)], owner="web", clock=lambda: NOW)
    app = build(dispatcher=dispatcher, dispatch="inline")
    for number in range(3):
        async with running(app):
            await post(app, BODY.replace(b"task-1", b"task-%d" % number))

    assert handled == ["task-0", "task-1", "task-2"]


@pytest.mark.parametrize(("call", "line"), [("start", "start.failed"), ("stop", "stop.failed")])
async def test_a_fault_of_ours_at_start_or_stop_is_logged(
    build: Build, inbox: Inbox, log: Log, call: str, line: str
) -> None:
    """F16: where it happened is in our log, and the text of the error is not."""
    text = "of a user"

    class Broken(Dispatcher):
        async def start(self) -> None:
            if call == "start":
                raise RuntimeError(text)

        async def stop(self, grace: float) -> None:
            if call == "stop":
                raise RuntimeError(text)

    with pytest.raises(RuntimeError):
        async with running(build(dispatcher=Broken(inbox, [], owner="web"))):
            pass

    assert log.line(line)["error"] == "RuntimeError"
    assert text not in log.text


async def test_a_delivery_after_the_shutdown_is_not_stored(build: Build, inbox: Inbox) -> None:
    """F40: a late delivery does not open again what was closed; its sender comes again."""
    app = build()
    async with running(app):
        pass

    answer = await post(app)

    assert answer.status == 503
    assert inbox.calls == ["open", "close", "add"]


@pytest.mark.parametrize(
    "failure", [StoreUnavailable("read-only"), SchemaMismatch("made by version 9", 9, 1)]
)
async def test_a_start_without_a_store_fails(
    build: Build, inbox: Inbox, told: list[TelemetryEvent], failure: Exception
) -> None:
    """F43: a server that runs lifespan is told at its start what is wrong."""
    inbox.failure = failure

    lifespan = running(build())
    (message,) = await lifespan.__aenter__()
    with pytest.raises(type(failure)):
        await lifespan.__aexit__(None, None, None)

    assert message["type"] == "lifespan.startup.failed"
    assert str(failure) in message["message"]
    assert [each.name for each in told] == ["store.failed"]


async def test_a_dispatcher_that_does_not_start_leaves_nothing_open(
    build: Build, inbox: Inbox
) -> None:
    """F45: a start that failed half-way is undone, and can be tried again."""

    class Broken(Dispatcher):
        async def start(self) -> None:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        async with running(build(dispatcher=Broken(inbox, [], owner="web"))):
            pass

    assert inbox.calls == ["open", "close"]


async def test_an_event_that_waited_is_handled_at_the_start(
    build: Build, inbox: Inbox, dispatcher: Noted, handled: asyncio.Event
) -> None:
    """F1: what was stored before a restart is handled after it."""
    app = build(dispatch="external")
    await post(app)

    async with running(build(dispatcher=dispatcher)):
        await asyncio.wait_for(handled.wait(), 5)

    await inbox.open()
    (dispatch,) = await inbox.dispatches(EVENT_ID)
    assert dispatch.state is DispatchState.DONE


class Part:
    """A ledger or a service, that notes its calls among the store's."""

    def __init__(self, name: str, calls: list[str], failure: Exception | None = None) -> None:
        self.name = name
        self.calls = calls
        self.failure = failure

    async def open(self) -> None:
        self.calls.append(f"{self.name} open")
        if self.failure is not None:
            raise self.failure

    async def close(self) -> None:
        self.calls.append(f"{self.name} close")

    async def start(self) -> None:
        self.calls.append(f"{self.name} start")
        if self.failure is not None:
            raise self.failure

    async def stop(self) -> None:
        self.calls.append(f"{self.name} stop")
        if self.failure is not None:
            raise self.failure


def lifecycle(
    inbox: Inbox,
    dispatcher: Noted | None = None,
    *,
    background: bool = True,
    freezes: bool = False,
    **parts: Part,
) -> Lifecycle:
    calls = inbox.calls
    return Lifecycle(
        inbox,
        dispatcher,
        3.0,
        background=background,
        ledger=cast("Ledger", parts.get("ledger", Part("ledger", calls))),
        services=[parts.get("follower", Part("follower", calls))],
        long_running=[parts.get("reconcile", Part("reconcile", calls))],
        freezes=freezes,
    )


async def test_all_parts_end_in_the_reverse_order(
    build: Build, inbox: Inbox, dispatcher: Noted
) -> None:
    """F40: what writes ends before what is written to."""
    app = build(lifecycle=lifecycle(inbox, dispatcher))
    async with running(app):
        begun = list(inbox.calls)
        inbox.calls.clear()

    assert begun == ["open", "ledger open", "follower start", "start", "reconcile start"]
    assert inbox.calls == [
        "reconcile stop",
        "stop 3.0",
        "follower stop",
        "ledger close",
        "close",
    ]


async def test_what_lasts_is_not_started_by_a_request(build: Build, inbox: Inbox) -> None:
    """F41: a process that may be frozen after its reply begins nothing that goes on."""
    app = build(lifecycle=lifecycle(inbox, background=False), dispatch="external")

    await post(app)

    assert "follower start" in inbox.calls
    assert "reconcile start" not in inbox.calls


async def test_what_lasts_is_started_where_the_server_says_so(build: Build, inbox: Inbox) -> None:
    """A server whose handlers run elsewhere reconciles all the same."""
    async with running(build(lifecycle=lifecycle(inbox, background=False), dispatch="external")):
        assert inbox.calls[-1] == "reconcile start"


async def test_what_lasts_is_not_started_where_nothing_goes_on(build: Build, inbox: Inbox) -> None:
    """F41: some platforms run lifespan, and freeze the process between requests all the same."""
    parts = lifecycle(inbox, background=False, freezes=True)
    async with running(build(lifecycle=parts, dispatch="external")):
        assert "reconcile start" not in inbox.calls
        assert not parts.keeps_running


@pytest.mark.parametrize(("background", "freezes"), [(False, False), (True, True), (True, False)])
async def test_what_follows_is_waited_for_where_the_process_may_halt(
    build: Build, inbox: Inbox, background: bool, freezes: bool
) -> None:
    """F41: before the reply, and for nobody where the process goes on."""
    parts = lifecycle(inbox, background=background, freezes=freezes)
    inbox.calls.clear()

    async def flush_ledger() -> None:
        inbox.calls.append("flush_ledger")

    answer = await post(build(lifecycle=parts, dispatch="external", flush_ledger=flush_ledger))

    assert answer.status == 202
    assert ("flush_ledger" in inbox.calls) is (freezes or not background)


async def test_a_store_that_is_lost_before_the_reply_does_not_keep_it(
    build: Build, inbox: Inbox, log: Log
) -> None:
    """F20, F41: the event is stored; what cannot be given back now is free when its lease ends."""
    lost = asyncio.Event()

    async def keep(event: Event, context: Context) -> None:
        lost.set()
        await asyncio.Event().wait()

    class Losing(Inbox):
        async def settle(self, *args: Any) -> bool:
            raise StoreUnavailable("away")

    inbox.__class__ = Losing
    dispatcher = Dispatcher(inbox, [Installed(Route("keep"), keep)], owner="web", clock=lambda: NOW)
    app = build(
        dispatcher=dispatcher, dispatch="inline", inline_deadline=0.05, release_timeout=0.05
    )

    assert (await post(app)).status == 202
    assert lost.is_set()
    assert log.line("drain.failed")["error"] == "TimeoutError"
    await dispatcher.stop(0)


async def test_a_ledger_that_does_not_open_fails_the_start(
    build: Build, inbox: Inbox, log: Log, told: list[TelemetryEvent]
) -> None:
    """F43: as with the store; what was opened before is closed."""
    ledger = Part("ledger", inbox.calls, LedgerUnavailable("a newer version made it"))
    app = build(lifecycle=lifecycle(inbox, ledger=ledger))

    with pytest.raises(StoreUnavailable, match="a newer version made it"):
        async with running(app) as sent:
            assert sent[0]["type"] == "lifespan.startup.failed"

    assert inbox.calls == ["open", "ledger open", "close"]
    assert [details.name for details in told] == ["store.failed"]


async def test_a_service_that_does_not_start_leaves_nothing_open(
    build: Build, inbox: Inbox, dispatcher: Noted
) -> None:
    """F45: the next start begins from nothing."""
    app = build(lifecycle=lifecycle(inbox, follower=Part("follower", inbox.calls, OSError())))

    answer = await post(app)

    assert answer.status == 503
    assert inbox.calls[-2:] == ["ledger close", "close"]


async def test_a_part_that_fails_to_stop_keeps_no_other_open(
    build: Build, inbox: Inbox, log: Log
) -> None:
    """F40: the database is let go of in any case."""
    app = build(lifecycle=lifecycle(inbox, reconcile=Part("reconcile", inbox.calls)))
    lasting = Part("broken", inbox.calls)
    app.state.lifecycle._long_running = (lasting,)
    with pytest.raises(OSError, match="broken"):
        async with running(app):
            lasting.failure = OSError("broken")

    assert inbox.calls[-3:] == ["follower stop", "ledger close", "close"]
    assert log.line("stop.failed")["error"] == "OSError"
