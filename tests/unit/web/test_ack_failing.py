"""What happens when it is not the sender's fault; and handlers before the reply."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from starlette.applications import Starlette

from receiver.dispatch.dispatcher import Dispatcher
from receiver.errors import SchemaMismatch, StoreUnavailable
from receiver.event import DispatchState, Event
from receiver.handlers.base import Context, Installed
from receiver.handlers.routing import Route
from receiver.telemetry import TelemetryEvent
from tests.support.asgi import BODY, EVENT_ID, NOW, PATH, Inbox, Log, post, request

Build = Callable[..., Starlette]


async def test_nothing_is_asked_of_the_store_before_verification(
    build: Build, inbox: Inbox
) -> None:
    """F4: unsigned posts do not even open the store; a signed one asks for one `add`."""
    app = build()

    for path in (PATH, f"{PATH}/token", "/webhooks/other", "/webhooks/nobody"):
        await request(app, path, chunks=[BODY])
    assert inbox.calls == []

    assert (await post(app)).status == 202
    assert inbox.calls == ["add", "open", "add"]


async def test_a_store_that_is_down_is_503_and_recovers(
    app: Starlette, inbox: Inbox, told: list[TelemetryEvent], log: Log
) -> None:
    """F20: the sender is told when to come again, and is taken in as soon as the store is back."""
    inbox.failure = StoreUnavailable("disk full", retry_after=7)
    down = await post(app)
    inbox.failure = None
    up = await post(app)

    assert down.status == 503
    assert down.header(b"retry-after") == b"7"
    assert down.header(b"content-type") == b"application/problem+json"
    assert down.header(b"connection") is None
    assert b"disk" not in down.body
    assert (up.status, up.json) == (202, {"id": EVENT_ID, "duplicate": False})
    assert [(each.name, each.result, each.status) for each in told] == [
        ("store.failed", "unavailable", None),
        ("delivery.failed", "unavailable", 503),
        ("delivery.accepted", "new", 202),
    ]
    assert told[0].error == "StoreUnavailable: disk full"
    assert [line["level"] for line in log.lines("request.served")] == ["warning", "info"]


async def test_a_store_that_does_not_open_is_503_and_recovers(build: Build, inbox: Inbox) -> None:
    """F20, F41: where the first need is a delivery, a store that cannot be opened is no crash."""
    app = build()
    inbox.failure = StoreUnavailable("unreachable")
    down = [await post(app), await post(app)]
    inbox.failure = SchemaMismatch("made by version 9", 9, 1)
    newer = await post(app)
    inbox.failure = None
    up = await post(app)

    assert [answer.status for answer in (*down, newer, up)] == [503, 503, 503, 202]
    assert newer.header(b"retry-after") == b"5"


async def test_a_store_that_was_opened_is_asked_once(build: Build, inbox: Inbox) -> None:
    """F20: a store that fails is not opened again and again by its senders."""
    app = build(hooks=[])
    await app.state.lifecycle.begin()
    inbox.failure = StoreUnavailable("locked")

    assert (await post(app)).status == 503
    assert inbox.calls == ["open", "add"]


async def test_a_fault_of_ours_is_503_and_keeps_its_text_to_itself(
    app: Starlette, inbox: Inbox, told: list[TelemetryEvent], log: Log
) -> None:
    """F16: the sender keeps what we could not store; the log says where, not what was in it."""
    inbox.failure = KeyError("a prompt from the body")

    answer = await post(app)

    assert answer.status == 503
    assert answer.header(b"retry-after") == b"5"
    line = log.line("delivery.failed")
    assert (line["error"], line["source"]) == ("KeyError", "wavespeed")
    assert "in add" in line["stack"]
    assert "prompt" not in log.text
    assert [(each.name, each.result, each.error) for each in told] == [
        ("delivery.failed", "error", "KeyError")
    ]


@pytest.mark.parametrize("deadline", [5.0])
async def test_inline_dispatch_runs_handlers_before_the_reply(
    build: Build, inbox: Inbox, deadline: float
) -> None:
    """F41: where nothing runs after the reply, a handler is done when the reply is sent."""
    handled: list[str] = []

    async def keep(event: Event, context: Context) -> None:
        handled.append(context.key)

    handlers = [Installed(Route("keep"), keep)]
    dispatcher = Dispatcher(inbox, handlers, owner="web", clock=lambda: NOW)
    app = build(dispatcher=dispatcher, dispatch="inline", inline_deadline=deadline)

    answer = await post(app)

    assert answer.status == 202
    assert handled == [f"{EVENT_ID}/keep"]
    (dispatch,) = await inbox.dispatches(EVENT_ID)
    assert dispatch.state is DispatchState.DONE


async def test_inline_dispatch_that_fails_does_not_take_back_the_ack(
    build: Build, inbox: Inbox, log: Log
) -> None:
    """What is stored is acknowledged, whatever happens to its handlers."""

    class Failing(Dispatcher):
        async def drain(self, limit: int | None = None, deadline: float | None = None) -> int:
            raise StoreUnavailable("gone")

    app = build(dispatcher=Failing(inbox, [], owner="web"), dispatch="inline")

    assert (await post(app)).status == 202
    assert log.line("drain.failed")["error"] == "StoreUnavailable"


async def test_external_dispatch_runs_nothing(build: Build, inbox: Inbox) -> None:
    """Where a worker or a schedule dispatches, the event just waits."""
    dispatcher = Dispatcher(inbox, [], owner="web")
    app = build(dispatcher=dispatcher, dispatch="external")

    await post(app)

    (dispatch,) = await inbox.dispatches(EVENT_ID)
    assert dispatch.state is DispatchState.PENDING


async def test_an_id_with_quotes_is_answered_as_json(app: Starlette) -> None:
    """F17: an id from the body is escaped in the answer."""
    subject = 'a"b\\c\u00e9'
    body = json.dumps({"id": subject, "status": "completed"}).encode()

    answer = await post(app, body)

    assert answer.json["id"] == f"wavespeed:{subject}:completed"
