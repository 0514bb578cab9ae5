"""F41: one app on one event loop, whatever loops its requests come from."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from receiver.web.one_loop import OneLoop
from tests.support.asgi import Answer, Connection, request, running, scope


class App:
    """Answers with the body, in pieces; notes on which loops it is used, and needs to be on one."""

    def __init__(self) -> None:
        self.loops: set[asyncio.AbstractEventLoop] = set()
        self.lock = asyncio.Lock()
        self.lifespans = 0
        self.stopped = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.loops.add(asyncio.get_running_loop())
        if scope["type"] == "lifespan":
            self.lifespans += 1
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/broken":
            raise ValueError("broken")
        body = b""
        # A lock that many wait for belongs to one loop for ever.
        async with self.lock:
            while True:
                message = await receive()
                body += message.get("body", b"")
                if not message.get("more_body"):
                    break
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for piece in (body[:1], body[1:]):
            await send(
                {"type": "http.response.body", "body": piece, "more_body": piece == body[:1]}
            )

    async def stop(self) -> None:
        self.loops.add(asyncio.get_running_loop())
        self.stopped += 1


@pytest.fixture
def made() -> list[App]:
    """The apps that were made."""
    return []


@pytest.fixture
def app(made: list[App]) -> Iterator[OneLoop]:
    def make() -> App:
        made.append(App())
        return made[-1]

    app = OneLoop(make)
    yield app
    app.close()
    assert not [each for each in threading.enumerate() if each.name == "wavehook-loop"]


def ask(app: OneLoop, body: bytes = b"body") -> Answer:
    """One request, on an event loop that ends with it."""
    return asyncio.run(request(app, "/x", chunks=[body[:2], body[2:]]))


def test_each_request_on_a_loop_of_its_own(app: OneLoop, made: list[App]) -> None:
    """F41: all of them meet the one app on the one loop."""
    assert [ask(app).body for _ in range(3)] == [b"body"] * 3
    assert [len(each.loops) for each in made] == [1]


def test_many_loops_at_once(app: OneLoop, made: list[App]) -> None:
    """F41: threads with loops of their own wait for the same lock, and get their own answers."""
    with ThreadPoolExecutor(8) as threads:
        bodies = [b"body %d" % number for number in range(40)]
        answers = list(threads.map(lambda body: ask(app, body).body, bodies))

    assert answers == bodies
    assert [len(each.loops) for each in made] == [1]


async def test_where_lifespan_runs_no_thread_is_made(app: OneLoop, made: list[App]) -> None:
    """A server with one loop pays nothing for the others."""
    async with running(app) as sent:
        answer = await request(app, "/x", chunks=[b"body"])

    assert answer.body == b"body"
    assert sent[-1] == {"type": "lifespan.shutdown.complete"}
    assert [each.loops for each in made] == [{asyncio.get_running_loop()}]


def test_lifespan_on_another_loop_each_time(app: OneLoop, made: list[App]) -> None:
    """F41: only the first is at home; the others share the loop that stays."""

    async def once() -> bytes:
        async with running(app):
            return (await request(app, "/x", chunks=[b"body"])).body

    assert [asyncio.run(once()) for _ in range(4)] == [b"body"] * 4
    assert [(len(each.loops), each.lifespans) for each in made] == [(1, 1), (1, 3)]


def test_what_the_app_raises_arrives(app: OneLoop) -> None:
    """A server sees the same error as without."""
    with pytest.raises(ValueError, match="broken"):
        asyncio.run(request(app, "/broken"))


def test_a_sender_that_leaves_ends_its_request(app: OneLoop) -> None:
    """F9: what is cancelled here is cancelled there, and others go on."""

    async def leave() -> None:
        asked = asyncio.Event()

        async def receive() -> Message:
            asked.set()
            await asyncio.Event().wait()
            raise AssertionError

        asking = asyncio.ensure_future(app(scope("/x"), receive, Connection([]).send))
        await asked.wait()
        asking.cancel()
        await asyncio.wait({asking})

    asyncio.run(leave())

    assert ask(app).body == b"body"


def test_after_a_close_it_begins_anew(app: OneLoop, made: list[App]) -> None:
    """F45: what was opened in the thread is let go of there, once."""
    app.close()
    ask(app)
    app.close()
    app.close()
    ask(app)

    assert [(len(each.loops), each.stopped) for each in made] == [(1, 1), (1, 0)]


def test_importing_starts_no_thread() -> None:
    """Importing does no work."""
    from receiver.web.asgi import app

    found: Callable[..., Any] = app
    assert isinstance(found, OneLoop)
    assert found._thread_app is None
